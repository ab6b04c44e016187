/* clock.h - the times that the service shows and measures. */
#ifndef RFUAV_BASE_CLOCK_H
#define RFUAV_BASE_CLOCK_H

#include <stdint.h>

enum { CLOCK_ISO_SIZE = 27 };

/* Local time as the API writes it: 2025-01-31T09:15:02.123456, always six digits. */
void clock_iso(char text[CLOCK_ISO_SIZE]);

/* Seconds of a clock that never jumps. */
double clock_seconds(void);

/* Microseconds since 1970, UTC. */
int64_t clock_unix_us(void);

#endif
