/* arena.h - memory with one lifetime: a connection, a task, a plan. Allocated piece by piece, freed in one call.
 * Nothing from an arena is freed alone. Not thread-safe: an arena has one owner. */
#ifndef RFUAV_BASE_ARENA_H
#define RFUAV_BASE_ARENA_H

#include <stddef.h>

struct arena;

/* An empty arena that will hand out at most `limit` bytes (0: no limit). NULL when the machine has no memory. */
struct arena *arena_new(size_t limit);

/* Zeroed memory aligned for any type; NULL past the limit or without memory. */
void *arena_alloc(struct arena *arena, size_t size);

/* Copies of a text or of bytes in the arena; NULL as above, and for a NULL text. */
char *arena_strdup(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *arena_memdup(struct arena *arena, const void *data, size_t size);

/* Runs fn(arg) when the arena is freed, last registered first: for descriptors, json_t, device memory.
 * Without memory to note it, fn(arg) runs at once and false is returned. */
_Bool arena_defer(struct arena *arena, void (*fn)(void *), void *arg);

/* Bytes handed out so far. */
size_t arena_used(const struct arena *arena);

/* Frees everything; accepts and returns NULL. */
struct arena *arena_free(struct arena *arena);

#endif
