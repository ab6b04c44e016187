/* commands.h - the entry points of the subcommands; each takes its own argv (argv[0] is its name) and returns the
 * process's exit status: 0 done, 1 failed, 2 wrong usage. */
#ifndef RFUAV_COMMANDS_H
#define RFUAV_COMMANDS_H

int command_serve(int argc, char **argv);
int command_train(int argc, char **argv);
int command_infer(int argc, char **argv);
int command_tasks(int argc, char **argv);
int command_status(int argc, char **argv);
int command_logs(int argc, char **argv);
int command_cancel(int argc, char **argv);
int command_delete(int argc, char **argv);
int command_devices(int argc, char **argv);
int command_config(int argc, char **argv);
int command_models(int argc, char **argv);
int command_synth(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_worker(int argc, char **argv); /* only the daemon starts it */
int command_version(int argc, char **argv);

#endif
