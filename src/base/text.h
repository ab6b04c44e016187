/* text.h - the two languages of the service's own messages.
 * tr("等待开始", "waiting to start") returns the text of the language in use; the compiler checks both as formats.
 * The Chinese texts are part of the HTTP contract and must stay byte for byte. */
#ifndef RFUAV_BASE_TEXT_H
#define RFUAV_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Chooses by name: "zh", "en", or NULL/"" for the locale (LC_ALL, LC_MESSAGES, LANG). Call once, before threads. */
void text_set_language(const char *name);
const char *text_language(void); /* "zh" or "en" */

const char *tr(const char *zh, const char *en) __attribute__((format_arg(1))) __attribute__((format_arg(2)));

/* Is it valid UTF-8 without NUL (no overlong forms, no surrogates)? */
bool text_is_utf8(const char *data, size_t size);

#endif
