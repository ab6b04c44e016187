/* serve.c - `rfuav serve`: puts the daemon together. One thread and one loop; what waits (the driver, a checkpoint of
 * the database) is done in libuv's pool. Start: settings, store, devices, queue, HTTP. Stop: the reverse, within five
 * seconds. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "base/arena.h"
#include "base/text.h"
#include "base/version.h"
#include "commands.h"
#include "server/api.h"
#include "server/banner.h"
#include "server/dispatch.h"
#include "server/journal.h"
#include "server/monitor.h"
#include "server/settings.h"
#include "server/store.h"

enum {
    FLUSH_MS = 25,         /* log lines and states are committed in groups of this time */
    FLUSH_RETRY_MS = 1000, /* when the disk refuses */
    CHECKPOINT_PAGES = 1000,
    CHECKPOINT_MS = 10000,
    DEVICES_WAIT_MS = 30, /* for the driver, before the first request is taken */
    BANNER_WAIT_MS = 500, /* for the driver, then the address is told without the banner */
    STOP_MS = 4500,
};

struct serve {
    uv_loop_t loop;
    struct arena *arena;
    struct settings settings;
    struct store *store;
    struct monitor *monitor;
    struct dispatch *dispatch;
    struct api *api;
    uv_signal_t terminate, interrupt;
    uv_timer_t flush, checkpoint, announce, deadline;
    uv_check_t turn;
    uv_work_t checkpoint_work;
    int checkpointed_pages;
    bool checkpointing, refusing, announced, bannered, stopping;
};

static void warn(const char *text)
{
    fprintf(stderr, "rfuav serve: %s\n", text);
}

/* ---- the store's work ---- */

static void on_flush(uv_timer_t *timer)
{
    struct serve *serve = timer->data;
    struct err err;

    if (store_flush(serve->store, &err)) {
        if (serve->refusing)
            journal(JOURNAL_INFO, "store: the disk takes writes again");
        serve->refusing = false;
        return;
    }
    if (!serve->refusing) /* once, not every second */
        journal(JOURNAL_ERROR, "store: %s", err.message);
    serve->refusing = true;
    uv_timer_start(&serve->flush, on_flush, FLUSH_RETRY_MS, 0);
}

static void run_checkpoint(uv_work_t *work)
{
    store_checkpoint(((struct serve *)work->data)->settings.data_dir);
}

static void checkpoint_done(uv_work_t *work, int status)
{
    (void)status;
    ((struct serve *)work->data)->checkpointing = false;
}

static void start_checkpoint(struct serve *serve)
{
    if (serve->checkpointing || serve->stopping)
        return;
    serve->checkpointed_pages = store_wal_pages(serve->store);
    serve->checkpointing = uv_queue_work(&serve->loop, &serve->checkpoint_work, run_checkpoint, checkpoint_done) == 0;
}

static void on_checkpoint(uv_timer_t *timer)
{
    struct serve *serve = timer->data;

    if (store_wal_pages(serve->store) != serve->checkpointed_pages)
        start_checkpoint(serve);
}

/* After each turn of the loop: is there something to be written? */
static void on_turn(uv_check_t *check)
{
    struct serve *serve = check->data;
    int pages = store_wal_pages(serve->store);

    if (!uv_is_active((uv_handle_t *)&serve->flush) && store_is_dirty(serve->store))
        uv_timer_start(&serve->flush, on_flush, FLUSH_MS, 0);
    if (pages < serve->checkpointed_pages) /* the log has begun anew */
        serve->checkpointed_pages = 0;
    if (pages - serve->checkpointed_pages >= CHECKPOINT_PAGES)
        start_checkpoint(serve);
}

/* ---- telling people ---- */

static void tell_address(struct serve *serve)
{
    if (serve->announced || serve->stopping || !serve->api)
        return;
    serve->announced = true;
    printf(tr("RFUAV 模型服务 %s 已就绪: %s\n", "RFUAV model service %s is ready: %s\n"), RFUAV_VERSION,
           api_url(serve->api));
    fflush(stdout);
    journal(JOURNAL_INFO, "serving url=%s data=%s pid=%ld", api_url(serve->api), serve->settings.data_dir,
            (long)getpid());
}

static void on_announce(uv_timer_t *timer)
{
    tell_address(timer->data);
}

static void on_devices(void *arg)
{
    struct serve *serve = arg;
    struct buf text;

    dispatch_devices_changed(serve->dispatch);
    if (serve->bannered || serve->stopping)
        return;
    serve->bannered = true;
    buf_init(&text, 1 << 20);
    banner_format(monitor_devices(serve->monitor), serve->dispatch, &text);
    fputs(text.data ? text.data : "", stdout);
    buf_release(&text);
    tell_address(serve);
    fflush(stdout);
}

/* ---- stopping ---- */

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void on_stopped(void *arg)
{
    struct serve *serve = arg;
    uv_handle_t *const ours[] = {(uv_handle_t *)&serve->terminate, (uv_handle_t *)&serve->interrupt,
                                 (uv_handle_t *)&serve->flush,     (uv_handle_t *)&serve->checkpoint,
                                 (uv_handle_t *)&serve->announce,  (uv_handle_t *)&serve->deadline,
                                 (uv_handle_t *)&serve->turn};

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        close_handle(ours[i], NULL);
    serve->dispatch = dispatch_free(serve->dispatch);
    monitor_close(serve->monitor);
    serve->monitor = NULL;
}

/* Somebody does not let go. All that was answered is on disk, and workers end when their sockets close. */
static void on_deadline(uv_timer_t *timer)
{
    struct serve *serve = timer->data;

    journal(JOURNAL_ERROR, "stopped without waiting any longer");
    store_close(serve->store);
    _exit(0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct serve *serve = handle->data;

    if (serve->stopping)
        return;
    serve->stopping = true;
    journal(JOURNAL_INFO, "stopping signal=%d running=%lld", number,
            (long long)store_count(serve->store, NULL, TASK_RUNNING));
    uv_timer_start(&serve->deadline, on_deadline, STOP_MS, 0);
    api_close(serve->api);
    serve->api = NULL;
    dispatch_stop(serve->dispatch, on_stopped, serve);
}

/* ---- starting ---- */

static void start_handles(struct serve *serve)
{
    uv_signal_init(&serve->loop, &serve->terminate);
    uv_signal_init(&serve->loop, &serve->interrupt);
    uv_timer_init(&serve->loop, &serve->flush);
    uv_timer_init(&serve->loop, &serve->checkpoint);
    uv_timer_init(&serve->loop, &serve->announce);
    uv_timer_init(&serve->loop, &serve->deadline);
    uv_check_init(&serve->loop, &serve->turn);
    serve->terminate.data = serve->interrupt.data = serve->flush.data = serve->checkpoint.data = serve;
    serve->announce.data = serve->deadline.data = serve->turn.data = serve->checkpoint_work.data = serve;
    uv_signal_start(&serve->terminate, on_signal, SIGTERM);
    uv_signal_start(&serve->interrupt, on_signal, SIGINT);
    uv_timer_start(&serve->checkpoint, on_checkpoint, CHECKPOINT_MS, CHECKPOINT_MS);
}

static void on_waited(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* A driver that is awake answers within the time that a start may take: then no early request has to be put off. */
static void wait_for_devices(struct serve *serve)
{
    bool waited = false;

    serve->announce.data = &waited;
    uv_timer_start(&serve->announce, on_waited, DEVICES_WAIT_MS, 0);
    while (!waited && !monitor_ready(serve->monitor) && uv_run(&serve->loop, UV_RUN_ONCE))
        ;
    serve->announce.data = serve;
    uv_timer_start(&serve->announce, on_announce, serve->bannered ? 0 : BANNER_WAIT_MS, 0);
}

/* A connection each for a thousand idle clients, and pipes for the workers. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool open_parts(struct serve *serve, struct err *err)
{
    const struct settings *settings = &serve->settings;
    struct dispatch_options options = {
        .loop = &serve->loop,
        .program = getenv("RFUAV_WORKER"), /* another executable as worker: for tests */
        .weights_folder = settings->weights_dir,
        .threads = settings->cpu_threads,
        .cache_bytes = (uint64_t)settings->cache_mb << 20,
        .queue_size = settings->task_queue_size,
        .limit_gpu = {[SLOT_TRAINING] = settings->max_training_concurrent_gpu,
                      [SLOT_INFERENCE] = settings->max_inference_concurrent_gpu},
        .limit_cpu = {[SLOT_TRAINING] = settings->max_training_concurrent_cpu,
                      [SLOT_INFERENCE] = settings->max_inference_concurrent_cpu},
    };

    if (!store_open(&(struct store_options){.folder = settings->data_dir}, &serve->store, err) ||
        !monitor_open(&serve->loop, settings->devices, on_devices, serve, &serve->monitor, err))
        return false;
    options.store = serve->store;
    options.monitor = serve->monitor;
    if (!dispatch_open(&options, &serve->dispatch, err))
        return false;
    wait_for_devices(serve);
    return serve->stopping || api_start(&(struct api_options){.loop = &serve->loop,
                                                              .settings = settings,
                                                              .store = serve->store,
                                                              .dispatch = serve->dispatch,
                                                              .monitor = serve->monitor},
                                        &serve->api, err);
}

static int run(struct serve *serve)
{
    struct err err;

    start_handles(serve);
    if (!journal_open(serve->settings.log_file, serve->settings.log_level, &err) || !open_parts(serve, &err)) {
        warn(err.message);
        store_close(serve->store);
        return 1; /* what else was opened ends with the process */
    }
    uv_check_start(&serve->turn, on_turn);
    uv_run(&serve->loop, UV_RUN_DEFAULT);
    serve->store = store_close(serve->store);
    uv_loop_close(&serve->loop);
    journal(JOURNAL_INFO, "stopped");
    journal_close();
    return 0;
}

static int help(void)
{
    struct buf text;

    buf_init(&text, 1 << 20);
    buf_puts(&text,
             tr("用法: rfuav serve [选项]\n\n启动服务。选项也可以写成环境变量或 .env 中的大写名字 (PORT=8000)。\n\n",
                "usage: rfuav serve [OPTIONS]\n\nStarts the service. Each option may also be a variable of the "
                "environment or in .env, in upper case (PORT=8000).\n\n"));
    fields_help(&settings_table, &text);
    fputs(text.data ? text.data : "", stdout);
    buf_release(&text);
    return 0;
}

int command_serve(int argc, char **argv)
{
    static struct serve serve;
    struct err err;
    int status = 2;

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    raise_descriptor_limit();
    setenv("UV_THREADPOOL_SIZE", "2", 0); /* the driver and the checkpoint */
    /* for the workers: OpenMP's threads spin for about 10 µs at the end of a parallel part, not for milliseconds, in
     * which workers that share the cores would only take them from each other */
    setenv("GOMP_SPINCOUNT", "10000", 0);
    if (!(serve.arena = arena_new(0)) || uv_loop_init(&serve.loop) < 0) {
        warn("out of memory");
        return 1;
    }
    if (settings_load(argc, argv, &serve.settings, serve.arena, warn, &err))
        status = run(&serve);
    else
        warn(err.message);
    arena_free(serve.arena);
    return status;
}
