/* message.h - what daemon and worker say to each other: one JSON object a packet on a SOCK_SEQPACKET pair, the worker's
 * end on descriptor 3. Bulk results are files; a message carries their path.
 *
 *   daemon → worker   {"type":"start","task_id","kind","device","backend","device_uuid","asked_device","threads",
 *                      "memory_limit","weights_folder","language","request":{…}}   first, once
 *                     {"type":"cancel"}
 *   worker → daemon   {"type":"log","timestamp","level","message"[,"metrics"][,"stage"]}
 *                     {"type":"progress","progress"[,"current_epoch"]}
 *                     {"type":"memory","planned"[,"allocated"]}   allocated: bytes it holds on the device already
 *                     {"type":"end","status":"completed"|"failed"|"cancelled"[,"error"][,"stats"]}   last, once
 *
 * Who writes which line of the log: the daemon those before the work (waiting for a device, "cuda" without a GPU,
 * device given) and about its end (cancelled by the user; failed, with the error of the end message); the worker all
 * others, from `开始训练...` to `训练完成！`, and that it let go after a cancel.
 *
 * When its socket closes, the worker exits at once: the daemon is gone or wants it gone. */
#ifndef RFUAV_TASK_MESSAGE_H
#define RFUAV_TASK_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { MESSAGE_MAX = 128 * 1024, MESSAGE_DESCRIPTOR = 3 };

/* Sends one packet. A log line too long for a packet is cut at a character's border. Blocks on a blocking socket; on a
 * non-blocking one that is full returns false with ERR_BUSY. */
bool message_send(int fd, const json_t *message, struct err *err);

/* Parses one packet; NULL with *err set when it is no object with a string "type" or is nested too deep. */
json_t *message_parse(const char *data, size_t size, struct err *err);

#endif
