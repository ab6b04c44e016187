/* replay.c - runs a fuzz target without a fuzzer: every file of its corpus, then mutations of them for some seconds.
 *   replay_NAME SECONDS CORPUS_FOLDER
 * The short form that `make test` runs with any compiler; `make fuzz` runs the same targets under libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_FILES = 1024, MAX_SIZE = 1 << 20 };

struct input {
    uint8_t *data;
    size_t size;
};

static size_t read_corpus(const char *folder, struct input *inputs)
{
    DIR *dir = opendir(folder);
    size_t n = 0;

    for (struct dirent *entry; dir && n < MAX_FILES && (entry = readdir(dir));) {
        char path[4096];
        FILE *file;

        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!file)
            continue;
        inputs[n].data = malloc(MAX_SIZE);
        if (inputs[n].data) {
            inputs[n].size = fread(inputs[n].data, 1, MAX_SIZE, file);
            n++;
        }
        fclose(file);
    }
    if (dir)
        closedir(dir);
    return n;
}

/* A copy, of exact size so that a reader beyond its end is caught, with a few bytes changed, dropped or repeated. */
static void run_mutated(const struct input *input, struct random *random)
{
    size_t size = input->size, cut = random_below(random, 4) ? size : random_below(random, (uint32_t)size + 1);
    uint8_t *copy = malloc(cut ? cut : 1);

    if (!copy)
        return;
    memcpy(copy, input->data, cut);
    for (uint32_t i = random_below(random, 8); cut && i > 0; i--) {
        size_t at = random_below(random, (uint32_t)cut), from = random_below(random, (uint32_t)cut);

        if (random_below(random, 2))
            copy[at] = (uint8_t)random_u32(random);
        else
            memmove(copy + at, copy + from, (cut - (at > from ? at : from)) / 2);
    }
    LLVMFuzzerTestOneInput(copy, cut);
    free(copy);
}

int main(int argc, char **argv)
{
    static struct input inputs[MAX_FILES];
    struct random random;
    size_t n, runs = 0;
    double end;

    if (argc < 3)
        return 2;
    n = read_corpus(argv[2], inputs);
    random_init(&random, 1, 0);
    for (size_t i = 0; i < n; i++)
        LLVMFuzzerTestOneInput(inputs[i].data, inputs[i].size);
    for (end = clock_seconds() + atof(argv[1]); n && clock_seconds() < end; runs++)
        run_mutated(&inputs[random_below(&random, (uint32_t)n)], &random);
    for (size_t i = 0; i < n; i++)
        free(inputs[i].data);
    printf("%zu files and %zu mutations\n", n, runs);
    return n ? 0 : 1;
}
