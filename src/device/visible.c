/* visible.c - CUDA_VISIBLE_DEVICES */
#include <stdlib.h>
#include <string.h>

#include "device/internal.h"

/* The device that one entry names, or `count`. */
static size_t named_device(const char *entry, size_t length, const struct device_info *devices, size_t count)
{
    size_t found = count, index = 0;

    if (length == 0 || length > 64)
        return count;
    if (strspn(entry, "0123456789") >= length) {
        for (size_t i = 0; i < length && index <= count; i++)
            index = 10 * index + (size_t)(entry[i] - '0');
        return index < count ? index : count;
    }
    for (size_t i = 0; i < count; i++) /* a beginning must belong to one device only */
        if (strncmp(devices[i].uuid, entry, length) == 0) {
            if (found != count)
                return count;
            found = i;
        }
    return found;
}

size_t device_visible(const char *value, const struct device_info *devices, size_t count, size_t *ret)
{
    size_t n = 0;

    if (!value) {
        for (; n < count; n++)
            ret[n] = n;
        return n;
    }
    while (n < count) {
        size_t blanks = strspn(value, " \t"), length = strcspn(value + blanks, ","), trimmed = length, i;

        while (trimmed > 0 && strchr(" \t", value[blanks + trimmed - 1]))
            trimmed--;
        i = named_device(value + blanks, trimmed, devices, count);
        for (size_t k = 0; k < n && i < count; k++)
            if (ret[k] == i)
                i = count;
        if (i == count)
            break;
        ret[n++] = i;
        value += blanks + length;
        if (!*value)
            break;
        value++;
    }
    return n;
}
