/* monitor.c - see monitor.h */
#include "server/monitor.h"

#include <stdlib.h>

#include "base/clock.h"

enum { TICK_MS = 1000, ACTIVE_SECONDS = 30, IDLE_TICKS = 10 };

struct monitor {
    struct device_set *set;
    uv_timer_t timer;
    uv_work_t work;
    void (*changed)(void *arg);
    void *arg;
    double touched_at, sampled_at, sampling_since;
    unsigned ticks;
    bool busy, closing, timer_closed;
};

static void free_when_done(struct monitor *monitor)
{
    if (!monitor->timer_closed || monitor->busy)
        return;
    device_set_free(monitor->set);
    free(monitor);
}

static void sample(uv_work_t *work)
{
    device_set_sample(((struct monitor *)work->data)->set);
}

static void sampled(uv_work_t *work, int status)
{
    struct monitor *monitor = work->data;

    monitor->busy = false;
    if (monitor->closing) {
        free_when_done(monitor);
        return;
    }
    if (status < 0)
        return;
    device_set_publish(monitor->set);
    monitor->sampled_at = monitor->sampling_since;
    monitor->changed(monitor->arg);
}

static void start_sampling(struct monitor *monitor)
{
    if (monitor->busy) /* the driver takes its time */
        return;
    monitor->busy = true;
    monitor->sampling_since = clock_seconds();
    if (uv_queue_work(monitor->timer.loop, &monitor->work, sample, sampled) < 0)
        monitor->busy = false;
}

static void on_tick(uv_timer_t *timer)
{
    struct monitor *monitor = timer->data;

    if (clock_seconds() - monitor->touched_at < ACTIVE_SECONDS || monitor->ticks % IDLE_TICKS == 0)
        start_sampling(monitor);
    monitor->ticks++;
}

bool monitor_open(uv_loop_t *loop, const char *file, void (*changed)(void *arg), void *arg, struct monitor **ret,
                  struct err *err)
{
    struct monitor *monitor = calloc(1, sizeof *monitor);

    if (!monitor)
        return err_set(err, ERR_MEMORY, "no memory for the list of devices");
    if (!device_set_new(file, &monitor->set, err)) {
        free(monitor);
        return false;
    }
    monitor->changed = changed;
    monitor->arg = arg;
    monitor->touched_at = monitor->sampled_at = clock_seconds();
    uv_timer_init(loop, &monitor->timer);
    monitor->timer.data = monitor->work.data = monitor;
    uv_timer_start(&monitor->timer, on_tick, TICK_MS, TICK_MS);
    start_sampling(monitor);
    *ret = monitor;
    return true;
}

struct device_set *monitor_devices(struct monitor *monitor)
{
    return monitor->set;
}

bool monitor_ready(const struct monitor *monitor)
{
    return device_set_ready(monitor->set);
}

double monitor_sampled_at(const struct monitor *monitor)
{
    return monitor->sampled_at;
}

void monitor_sample(struct monitor *monitor)
{
    start_sampling(monitor);
}

void monitor_touch(struct monitor *monitor)
{
    monitor->touched_at = clock_seconds();
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct monitor *monitor = handle->data;

    monitor->timer_closed = true;
    free_when_done(monitor);
}

void monitor_close(struct monitor *monitor)
{
    if (!monitor)
        return;
    monitor->closing = true;
    uv_close((uv_handle_t *)&monitor->timer, on_timer_closed);
}
