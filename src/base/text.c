/* text.c - see text.h */
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static bool chinese;

void text_set_language(const char *name)
{
    static const char *const variables[] = {"LC_ALL", "LC_MESSAGES", "LANG"};

    for (size_t i = 0; i < sizeof variables / sizeof *variables && (!name || !*name); i++)
        name = getenv(variables[i]);
    chinese = name && strncmp(name, "zh", 2) == 0;
}

const char *text_language(void)
{
    return chinese ? "zh" : "en";
}

const char *tr(const char *zh, const char *en)
{
    return chinese ? zh : en;
}

bool text_is_utf8(const char *data, size_t size)
{
    const unsigned char *p = (const unsigned char *)data, *end = p + size;

    while (p < end) {
        unsigned code = *p++;
        int more = code < 0x80 ? 0 : code >= 0xC2 && code < 0xE0 ? 1 : code >= 0xE0 && code < 0xF0 ? 2 : 3;
        unsigned least[] = {0, 0x80, 0x800, 0x10000};

        if (code == 0 || (code >= 0x80 && code < 0xC2) || code > 0xF4 || end - p < more)
            return false;
        if (more)
            code &= 0x3Fu >> more;
        for (int i = 0; i < more; i++, p++) {
            if ((*p & 0xC0) != 0x80)
                return false;
            code = code << 6 | (*p & 0x3Fu);
        }
        if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            return false;
    }
    return true;
}
