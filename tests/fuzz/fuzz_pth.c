/* fuzz_pth.c - checkpoints. The input is an archive; or, since no fuzzer guesses checksums, after a first byte that no
 * archive begins with, a bare data.pkl that is put into one with a storage beside it. What is read is written and read
 * again: the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/pth.h"
#include "formats/zipfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ENOUGH = 1 << 20 };

static size_t bytes_of(const struct named_tensor *tensor)
{
    return (size_t)named_tensor_elements(tensor) * dtype_size(tensor->dtype);
}

static void check_equal(const struct state_dict *a, const struct state_dict *b)
{
    if (state_dict_count(a) != state_dict_count(b))
        abort();
    for (size_t i = 0; i < state_dict_count(a); i++) {
        const struct named_tensor *x = state_dict_at(a, i), *y = state_dict_find(b, x->name);

        if (!y || x->dtype != y->dtype || x->rank != y->rank || memcmp(x->data, y->data, bytes_of(x)) != 0)
            abort();
    }
}

static void round_trip(const struct state_dict *dict)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    struct source source = {.fd = fd};
    struct state_dict *again;
    struct err err;
    size_t total = 0;

    for (size_t i = 0; i < state_dict_count(dict); i++)
        total += bytes_of(state_dict_at(dict, i));
    if (fd < 0)
        abort();
    if (total < ENOUGH) {
        if (!pth_encode(fd, "x", dict, &err))
            abort();
        source.size = (uint64_t)lseek(fd, 0, SEEK_CUR);
        /* names that all begin with "module." lose it, once more */
        if (!pth_read_source(&source, &again, &err))
            abort();
        if (state_dict_find(again, state_dict_at(dict, 0)->name))
            check_equal(dict, again);
        state_dict_free(again);
    }
    close(fd);
}

static void read_pickle(const uint8_t *data, size_t size)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    static const char storage[64] = "numbers";
    struct state_dict *dict = NULL;
    struct zip_writer zip;
    struct source source = {.fd = fd};
    struct err err;

    zip_writer_init(&zip, fd);
    if (fd < 0 || !zip_writer_add(&zip, "x/data.pkl", data, size, &err) ||
        !zip_writer_add(&zip, "x/data/0", storage, sizeof storage, &err) || !zip_writer_finish(&zip, &err))
        abort();
    zip_writer_release(&zip);
    source.size = (uint64_t)lseek(fd, 0, SEEK_CUR);
    if (pth_read_source(&source, &dict, &err))
        round_trip(dict);
    state_dict_free(dict);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_dict *dict = NULL;
    struct err err;

    if (size && data[0] != 'P') {
        read_pickle(data, size);
        return 0;
    }
    if (pth_decode(data, size, &dict, &err))
        round_trip(dict);
    state_dict_free(dict);
    return 0;
}
