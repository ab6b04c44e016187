/* uri.c - percent-encoding and query strings. */
#include <string.h>

#include "base/text.h"
#include "http/internal.h"

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

size_t uri_decode(char *text, size_t size, bool plus)
{
    size_t n = 0;

    for (size_t i = 0; i < size; i++) {
        int high = i + 2 < size && text[i] == '%' ? hex(text[i + 1]) : -1;
        int low = high >= 0 ? hex(text[i + 2]) : -1;

        if (low >= 0) {
            text[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            text[n++] = plus && text[i] == '+' ? ' ' : text[i];
        }
    }
    text[n] = '\0';
    if (!text_is_utf8(text, n))
        for (size_t i = 0; i < n; i++)
            if (!text[i] || text[i] & 0x80)
                text[i] = '?';
    return n;
}

json_t *uri_query(const char *query, struct arena *arena)
{
    json_t *object = json_object();

    while (object && *query) {
        size_t length = strcspn(query, "&"), name_size = strcspn(query, "&=");
        bool has_value = name_size < length;
        char *pair = arena_memdup(arena, query, length + 1), *name = pair, *value;

        if (!pair) {
            json_decref(object);
            return NULL;
        }
        value = pair + name_size + has_value;
        if (length) {
            size_t value_size = uri_decode(value, length - name_size - has_value, true);

            name_size = uri_decode(name, name_size, true);
            json_object_setn_new_nocheck(object, name, name_size, json_stringn_nocheck(value, value_size));
        }
        query += length + (query[length] == '&');
    }
    return object;
}
