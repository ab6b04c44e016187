/* banner.h - what the daemon tells about the machine when it starts. */
#ifndef RFUAV_SERVER_BANNER_H
#define RFUAV_SERVER_BANNER_H

#include "base/buf.h"
#include "device/device.h"
#include "server/dispatch.h"

/* Appends the banner (section 17 of the contract, or its English counterpart): the GPUs with their memory and tasks, or
 * why there is none and what the processor is. */
void banner_format(const struct device_set *devices, const struct dispatch *dispatch, struct buf *out);

#endif
