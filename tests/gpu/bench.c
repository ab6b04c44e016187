/* bench.c - `rfuav bench` alone, without the CPU backend and the service's libraries, so that it runs on a bare GPU
 * server. */
#include "commands.h"
#include "engine/backend.h"

const struct backend cpu_backend = {.name = "cpu"};

int main(int argc, char **argv)
{
    return command_bench(argc, argv);
}
