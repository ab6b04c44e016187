/* backend.c - the list of backends. */
#include "engine/backend.h"

#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cuda_object.h"
#include "engine/ref/ref.h"

static const struct backend *const backends[] = {&cpu_backend, &ref_backend, &cuda_backend};

enum { BACKENDS = sizeof backends / sizeof *backends };

const struct backend *backend_find(const char *name)
{
    for (int i = 0; i < BACKENDS; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}
