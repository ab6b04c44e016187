/* key_map.h - a hash table from 128-bit hashes to 128 bits of anything. Keys are hashes already, so their low bits
 * choose the place. Not for threads. */
#ifndef RFUAV_DATA_KEY_MAP_H
#define RFUAV_DATA_KEY_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct key { /* all zero: none */
    uint64_t low, high;
};

struct key_map {
    struct key_map_item {
        struct key key, value;
    } * items;
    size_t count, capacity; /* capacity: a power of 2, or 0 */
};

bool key_map_put(struct key_map *map, struct key key, struct key value); /* replaces; false without memory */
bool key_map_get(const struct key_map *map, struct key key, struct key *ret);
void key_map_release(struct key_map *map);

static inline bool key_same(struct key a, struct key b)
{
    return a.low == b.low && a.high == b.high;
}

static inline bool key_none(struct key key)
{
    return (key.low | key.high) == 0;
}

#endif
