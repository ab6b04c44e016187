/* version.c - `rfuav version` */
#include <stdio.h>

#include "base/version.h"
#include "commands.h"

int command_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("rfuav " RFUAV_VERSION);
    return 0;
}
