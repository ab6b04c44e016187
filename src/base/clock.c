/* clock.c - see clock.h */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

void clock_iso(char text[CLOCK_ISO_SIZE])
{
    struct timespec now;
    struct tm local;
    char seconds[20];

    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &local);
    snprintf(text, CLOCK_ISO_SIZE, "%s.%06u", seconds, (unsigned)(now.tv_nsec / 1000) % 1000000u);
}

double clock_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t clock_unix_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
