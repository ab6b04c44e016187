/* arena.c - a list of blocks, each twice as large as the one before up to a bound. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BLOCK = 4096, LARGEST_BLOCK = 1 << 20 };

struct block {
    struct block *next;
    size_t size, used;
    alignas(max_align_t) char data[];
};

struct deferred {
    struct deferred *next;
    void (*fn)(void *);
    void *arg;
};

struct arena {
    struct block *blocks;
    struct deferred *deferred;
    size_t limit, used, next_size;
};

struct arena *arena_new(size_t limit)
{
    struct arena *arena = calloc(1, sizeof *arena);

    if (arena) {
        arena->limit = limit;
        arena->next_size = FIRST_BLOCK;
    }
    return arena;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    const size_t align = alignof(max_align_t);
    struct block *block = arena->blocks;
    size_t rounded;
    void *ret;

    if (size > SIZE_MAX - align - sizeof *block)
        return NULL;
    rounded = (size + align - 1) / align * align;
    if (arena->limit && (rounded > arena->limit || arena->used > arena->limit - rounded))
        return NULL;
    if (!block || block->size - block->used < rounded) {
        size_t want = rounded > arena->next_size ? rounded : arena->next_size;

        block = calloc(1, sizeof *block + want);
        if (!block)
            return NULL;
        block->size = want;
        if (rounded > arena->next_size && arena->blocks) {
            /* one large piece: keep filling the block in front */
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        } else {
            block->next = arena->blocks;
            arena->blocks = block;
            if (arena->next_size < LARGEST_BLOCK)
                arena->next_size *= 2;
        }
    }
    ret = block->data + block->used;
    block->used += rounded;
    arena->used += rounded;
    return ret;
}

void *arena_memdup(struct arena *arena, const void *data, size_t size)
{
    void *copy = arena_alloc(arena, size);

    if (copy && size)
        memcpy(copy, data, size);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return text ? arena_memdup(arena, text, strlen(text) + 1) : NULL;
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
    va_list args;
    int length;
    char *text;

    va_start(args, fmt);
    length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length < 0)
        return NULL;
    text = arena_alloc(arena, (size_t)length + 1);
    if (!text)
        return NULL;
    va_start(args, fmt);
    vsnprintf(text, (size_t)length + 1, fmt, args);
    va_end(args);
    return text;
}

bool arena_defer(struct arena *arena, void (*fn)(void *), void *arg)
{
    struct deferred *deferred = arena_alloc(arena, sizeof *deferred);

    if (!deferred) {
        fn(arg);
        return false;
    }
    deferred->fn = fn;
    deferred->arg = arg;
    deferred->next = arena->deferred;
    arena->deferred = deferred;
    return true;
}

size_t arena_used(const struct arena *arena)
{
    return arena->used;
}

struct arena *arena_free(struct arena *arena)
{
    if (!arena)
        return NULL;
    for (struct deferred *d = arena->deferred; d; d = d->next)
        d->fn(d->arg);
    while (arena->blocks) {
        struct block *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    free(arena);
    return NULL;
}
