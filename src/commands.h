/* commands.h - the entry points of the subcommands; each takes its own argv (argv[0] is its name) and returns the
 * process's exit status: 0 done, 1 failed, 2 wrong usage. */
#ifndef RFUAV_COMMANDS_H
#define RFUAV_COMMANDS_H

int command_version(int argc, char **argv);

#endif
