/* epochs.c - tests/bench/epochs.c without the CPU backend and its library, for a bare GPU server. */
#include "engine/backend.h"

#include "../bench/epochs.c"

const struct backend cpu_backend = {.name = "cpu"};
