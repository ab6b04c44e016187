/* message.c - see message.h */
#include "task/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"

enum { DEPTH_MAX = 32, ENCODE_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(17) };

/* The largest size ≤ `size` at which UTF-8 text may be cut. */
static size_t character_border(const char *text, size_t size)
{
    while (size > 0 && ((unsigned char)text[size] & 0xC0) == 0x80)
        size--;
    return size;
}

/* A copy of an oversized message whose text "message" is short enough for the whole to fit; NULL when it cannot be. */
static json_t *shortened(const json_t *message, size_t excess)
{
    static const char mark[] = " […]";
    const json_t *text = json_object_get(message, "message");
    size_t length = json_string_length(text);
    json_t *copy, *cut;
    char *part;

    /* a character may be written as six (\u0001), so halve rather than count */
    if (!text || length < 2 || !(part = malloc(length + sizeof mark)))
        return NULL;
    length = character_border(json_string_value(text), excess < length / 2 ? length - excess : length / 2);
    memcpy(part, json_string_value(text), length);
    memcpy(part + length, mark, sizeof mark);
    cut = json_string(part);
    free(part);
    copy = json_copy((json_t *)message);
    if (!copy || json_object_set_new(copy, "message", cut) < 0) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static bool send_packet(int fd, const char *data, size_t size, struct err *err)
{
    while (send(fd, data, size, MSG_NOSIGNAL) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return err_set(err, ERR_BUSY, "the other side does not read its messages");
        return err_set(err, ERR_IO, "cannot send a message of %zu bytes: %s", size, strerror(errno));
    }
    return true;
}

bool message_send(int fd, const json_t *message, struct err *err)
{
    char *data = malloc(MESSAGE_MAX);
    json_t *shorter = NULL;
    size_t size;
    bool ok;

    if (!data)
        return err_set(err, ERR_MEMORY, "no memory for a message of up to %d bytes", MESSAGE_MAX);
    size = json_dumpb(message, data, MESSAGE_MAX, ENCODE_FLAGS);
    while (size > MESSAGE_MAX) {
        json_t *next = shortened(shorter ? shorter : message, size - MESSAGE_MAX + 16);

        json_decref(shorter);
        if (!(shorter = next))
            break;
        size = json_dumpb(shorter, data, MESSAGE_MAX, ENCODE_FLAGS);
    }
    if (size == 0)
        ok = err_set(err, ERR_BUG, "a message that is no JSON");
    else if (size > MESSAGE_MAX)
        ok = err_set(err, ERR_TOO_LARGE, "a message of %zu bytes: at most %d fit", size, MESSAGE_MAX);
    else
        ok = send_packet(fd, data, size, err);
    json_decref(shorter);
    free(data);
    return ok;
}

/* Is the JSON text nested at most DEPTH_MAX deep? Looked at before parsing, which would recurse. */
static bool shallow(const char *data, size_t size)
{
    bool in_string = false;
    int depth = 0;

    for (size_t i = 0; i < size; i++) {
        if (in_string) {
            if (data[i] == '\\')
                i++;
            else if (data[i] == '"')
                in_string = false;
        } else if (data[i] == '"') {
            in_string = true;
        } else if (data[i] == '{' || data[i] == '[') {
            if (++depth > DEPTH_MAX)
                return false;
        } else if (data[i] == '}' || data[i] == ']') {
            depth--;
        }
    }
    return true;
}

json_t *message_parse(const char *data, size_t size, struct err *err)
{
    json_error_t error;
    json_t *message;

    if (size > MESSAGE_MAX) {
        err_set(err, ERR_TOO_LARGE, "a message of %zu bytes: at most %d are allowed", size, MESSAGE_MAX);
        return NULL;
    }
    if (!shallow(data, size)) {
        err_set(err, ERR_INVALID, "a message nested deeper than %d levels", DEPTH_MAX);
        return NULL;
    }
    if (!(message = json_loadb(data, size, 0, &error))) {
        /* the parser quotes what it read, and may cut it inside a character */
        err_set(err, ERR_INVALID, "a message that is no JSON: %s at byte %d",
                text_is_utf8(error.text, strlen(error.text)) ? error.text : "malformed", error.position);
        return NULL;
    }
    if (!json_is_string(json_object_get(message, "type"))) {
        err_set(err, ERR_INVALID, "a message without \"type\"");
        json_decref(message);
        return NULL;
    }
    return message;
}
