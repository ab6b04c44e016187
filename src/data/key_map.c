/* key_map.c - see key_map.h: open addressing, at most three quarters full. */
#include "data/key_map.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 256 };

/* The key's place, or the free one where it would go. */
static struct key_map_item *place_of(const struct key_map *map, struct key key)
{
    size_t i = (size_t)key.low & (map->capacity - 1);

    while (!key_none(map->items[i].key) && !key_same(map->items[i].key, key))
        i = (i + 1) & (map->capacity - 1);
    return &map->items[i];
}

static bool grow(struct key_map *map)
{
    struct key_map larger = {.capacity = map->capacity ? 2 * map->capacity : FIRST_CAPACITY, .count = map->count};

    larger.items = calloc(larger.capacity, sizeof *larger.items);
    if (!larger.items)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (!key_none(map->items[i].key))
            *place_of(&larger, map->items[i].key) = map->items[i];
    free(map->items);
    *map = larger;
    return true;
}

bool key_map_put(struct key_map *map, struct key key, struct key value)
{
    struct key_map_item *item;

    if (key_none(key))
        return true;
    if (4 * (map->count + 1) > 3 * map->capacity && !grow(map))
        return false;
    item = place_of(map, key);
    map->count += key_none(item->key);
    *item = (struct key_map_item){key, value};
    return true;
}

bool key_map_get(const struct key_map *map, struct key key, struct key *ret)
{
    const struct key_map_item *item;

    if (key_none(key) || map->capacity == 0)
        return false;
    item = place_of(map, key);
    if (key_none(item->key))
        return false;
    *ret = item->value;
    return true;
}

void key_map_release(struct key_map *map)
{
    free(map->items);
    *map = (struct key_map){0};
}
