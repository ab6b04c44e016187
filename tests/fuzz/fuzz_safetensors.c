/* fuzz_safetensors.c - safetensors files. What is read is written and read again: the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_equal(const struct state_dict *a, const struct state_dict *b)
{
    if (state_dict_count(a) != state_dict_count(b))
        abort();
    for (size_t i = 0; i < state_dict_count(a); i++) {
        const struct named_tensor *x = state_dict_at(a, i), *y = state_dict_find(b, x->name);

        if (!y || x->dtype != y->dtype || x->rank != y->rank || memcmp(x->shape, y->shape, sizeof x->shape) != 0 ||
            memcmp(x->data, y->data, (size_t)named_tensor_elements(x) * dtype_size(x->dtype)) != 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_dict *dict = NULL, *again = NULL;
    struct source source;
    struct err err;
    int fd;

    if (!safetensors_decode(data, size, &dict, &err))
        return 0;
    fd = memfd_create("tensors", MFD_CLOEXEC);
    if (fd < 0 || !safetensors_encode(fd, dict, &err))
        abort();
    source = (struct source){.fd = fd, .size = (uint64_t)lseek(fd, 0, SEEK_CUR)};
    if (!safetensors_read_source(&source, &again, &err))
        abort();
    check_equal(dict, again);
    state_dict_free(again);
    state_dict_free(dict);
    close(fd);
    return 0;
}
