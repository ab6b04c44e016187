/* monitor.h - the devices of this machine as the event loop sees them: asked of the driver in libuv's thread pool, once
 * a second while somebody looks or tasks run, else every ten. Nothing here waits. */
#ifndef RFUAV_SERVER_MONITOR_H
#define RFUAV_SERVER_MONITOR_H

#include <stdbool.h>
#include <uv.h>

#include "base/err.h"
#include "device/device.h"

struct monitor;

/* file: a device file for tests, or NULL. changed(arg) is called on the loop after each sample. Only a bad device file
 * is an error. */
bool monitor_open(uv_loop_t *loop, const char *file, void (*changed)(void *arg), void *arg, struct monitor **ret,
                  struct err *err);

/* The latest sample. Without GPUs until the driver has answered for the first time: see monitor_ready(). */
struct device_set *monitor_devices(struct monitor *monitor);

/* Has the driver answered? Until then no device may be refused: answer 503. At most a second or so after the start. */
bool monitor_ready(const struct monitor *monitor);

/* The clock_seconds() at which the latest sample began. */
double monitor_sampled_at(const struct monitor *monitor);

/* Takes a sample now, unless one is being taken. */
void monitor_sample(struct monitor *monitor);

/* Somebody looks: sample every second for a while. */
void monitor_touch(struct monitor *monitor);

void monitor_close(struct monitor *monitor); /* frees itself in the loop's later turns */

#endif
