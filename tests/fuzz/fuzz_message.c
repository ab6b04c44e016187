/* fuzz_message.c - any bytes from a worker: parsed or refused with a sentence, and what was parsed can be sent again */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "task/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    json_t *message = message_parse((const char *)data, size, &err), *again;
    static char text[MESSAGE_MAX * 8];
    size_t n;

    if (!message) {
        assert(err.message[0] && text_is_utf8(err.message, strlen(err.message)));
        return 0;
    }
    assert(json_is_string(json_object_get(message, "type")));
    n = json_dumpb(message, text, sizeof text, JSON_COMPACT | JSON_REAL_PRECISION(17));
    assert(n > 0);
    if (n <= MESSAGE_MAX) {
        again = message_parse(text, n, &err);
        assert(again && json_equal(message, again));
        json_decref(again);
    }
    json_decref(message);
    return 0;
}
