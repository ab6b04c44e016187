/* synth.c - `rfuav synth`: a labelled data set of simulated drone spectrograms, made by one simulator per thread.
 * Which picture a thread makes does not matter to what is in it, so the result depends on the options alone. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fields.h"
#include "base/text.h"
#include "cli/options.h"
#include "commands.h"
#include "data/synth.h"

struct synth_options {
    const char *out, *format;
    int64_t classes, train, val, size, window, seed, threads;
    double snr, rate, duration;
    bool iq, force;
};

#define RANGE(low, high) .flags = FIELD_HAS_MIN | FIELD_HAS_MAX, .min = (low), .max = (high)

static const struct field synth_fields[] = {
    FIELD(synth_options, out, STRING, .flags = FIELD_REQUIRED, .doc = "folder to make; gets train/ and valid/"),
    FIELD(synth_options, classes, INT, .initial = "8", RANGE(1, SYNTH_MAX_CLASSES), .doc = "drone types"),
    FIELD(synth_options, train, INT, .initial = "40", RANGE(1, 1000000), .doc = "pictures a class for training"),
    FIELD(synth_options, val, INT, .initial = "10", RANGE(0, 1000000), .doc = "pictures a class for validation"),
    FIELD(synth_options, snr, FLOAT, .initial = "10", RANGE(-60, 100), .doc = "signal to noise ratio in dB"),
    FIELD(synth_options, size, INT, .initial = "224", RANGE(16, 4096), .doc = "width and height in pixels"),
    FIELD(synth_options, seed, INT, .initial = "1", RANGE(0, 9e15), .doc = "another seed, other recordings"),
    FIELD(synth_options, format, STRING, .initial = "png", .doc = "png or jpg"),
    FIELD(synth_options, iq, BOOL, .initial = "false", .doc = "also write the signal: .iq, float32 I and Q by turns"),
    FIELD(synth_options, rate, FLOAT, .initial = "100", RANGE(20, 1000), .doc = "width of the band in MHz"),
    FIELD(synth_options, duration, FLOAT, .initial = "4", RANGE(0.2, 200), .doc = "length of a recording in ms"),
    FIELD(synth_options, window, INT, .initial = "1024", RANGE(16, 65536), .doc = "samples in a Fourier transform"),
    FIELD(synth_options, threads, INT, .initial = "0", RANGE(0, 256), .doc = "0: one for each core"),
    FIELD(synth_options, force, BOOL, .initial = "false", .doc = "write into a folder that is not empty"),
};
static const struct field_table synth_table = FIELD_TABLE("SynthOptions", synth_options, synth_fields);

/* training, validation */
static const char *const splits[] = {"train", "valid"};

struct job {
    const struct synth_options *options;
    struct synth_config config;
    size_t count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next, done; /* pictures begun and finished */
    uint64_t bytes;    /* written */
    int running;       /* threads */
    bool failed;
    struct err err; /* the first fault */
};

/* "Drone07"; as many digits as the last class needs, two at least. */
static void class_name(const struct synth_options *options, size_t index, char name[32])
{
    int digits = options->classes > 999 ? 4 : options->classes > 99 ? 3 : 2;

    snprintf(name, 32, "Drone%0*zu", digits, index + 1);
}

static bool path_too_long(struct err *err)
{
    return err_set(err, ERR_INVALID, tr("--out 的路径太长", "the path of --out is too long"));
}

static uint64_t file_size(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Picture n of the job: all of one class's training pictures, its validation pictures, the next class. */
static bool make_picture(struct job *job, struct synth *synth, size_t n, uint64_t *ret_bytes, struct err *err)
{
    const struct synth_options *options = job->options;
    size_t each = (size_t)(options->train + options->val), index = n / each, i = n % each;
    int split = i >= (size_t)options->train;
    const struct signal *signal = synth_record(synth, index, split, split ? i - (size_t)options->train : i);
    const struct image *image = synth_picture(synth);
    char name[32], stem[PATH_MAX], path[PATH_MAX];
    bool jpg = strcmp(options->format, "jpg") == 0;

    class_name(options, index, name);
    if (snprintf(stem, sizeof stem, "%s/%s/%s/%s_%04zu", options->out, splits[split], name, name,
                 (split ? i - (size_t)options->train : i) + 1) >= (int)sizeof stem ||
        snprintf(path, sizeof path, "%s.%s", stem, options->format) >= (int)sizeof path)
        return path_too_long(err);
    if (!(jpg ? image_write_jpeg(path, image, 92, err) : image_write_png(path, image, err)))
        return false;
    *ret_bytes = file_size(path);
    if (!options->iq)
        return true;
    if (snprintf(path, sizeof path, "%s.iq", stem) >= (int)sizeof path)
        return path_too_long(err);
    if (!signal_write_iq(signal, path, err))
        return false;
    *ret_bytes += file_size(path);
    return true;
}

static void *make_pictures(void *arg)
{
    struct job *job = arg;
    struct synth *synth = NULL;
    struct err err;
    bool ok = synth_open(&job->config, &synth, &err);

    pthread_mutex_lock(&job->lock);
    while (ok && !job->failed && job->next < job->count) {
        size_t n = job->next++;
        uint64_t bytes = 0;

        pthread_mutex_unlock(&job->lock);
        ok = make_picture(job, synth, n, &bytes, &err);
        pthread_mutex_lock(&job->lock);
        job->done += ok;
        job->bytes += bytes;
    }
    if (!ok && !job->failed) {
        job->failed = true;
        job->err = err;
    }
    job->running--;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
    synth_free(synth);
    return NULL;
}

/* On a terminal: one line that is drawn anew. */
static void show_progress(size_t done, size_t count, double seconds)
{
    char bar[31];
    size_t filled = done * (sizeof bar - 1) / count;

    memset(bar, '#', sizeof bar - 1);
    memset(bar + filled, '.', sizeof bar - 1 - filled);
    bar[sizeof bar - 1] = '\0';
    fprintf(stderr, tr("\r[%s] %zu/%zu 张图像", "\r[%s] %zu/%zu pictures"), bar, done, count);
    if (done > 0)
        fprintf(stderr, tr("  剩余 %.0f 秒 ", "  %.0f s left "), seconds * (double)(count - done) / (double)done);
    fflush(stderr);
}

static void watch(struct job *job, double started)
{
    bool terminal = isatty(STDERR_FILENO);

    pthread_mutex_lock(&job->lock);
    while (job->running > 0) {
        struct timespec until;
        size_t done = job->done;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 200000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_unlock(&job->lock);
        if (terminal)
            show_progress(done, job->count, clock_seconds() - started);
        pthread_mutex_lock(&job->lock);
        if (job->running > 0)
            pthread_cond_timedwait(&job->changed, &job->lock, &until);
    }
    pthread_mutex_unlock(&job->lock);
    if (terminal)
        fputs("\r\033[K", stderr);
}

static int thread_count(const struct synth_options *options, size_t pictures)
{
    cpu_set_t cpus;
    int threads = (int)options->threads;

    if (threads == 0)
        threads = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    if (threads > 256)
        threads = 256;
    return (size_t)threads > pictures ? (int)pictures : threads;
}

static bool run(struct job *job, struct err *err)
{
    pthread_t threads[256];
    int wanted = thread_count(job->options, job->count), started = 0, code = 0;

    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    pthread_mutex_lock(&job->lock);
    while (started < wanted && (code = pthread_create(&threads[started], NULL, make_pictures, job)) == 0)
        started++;
    job->running += started;
    pthread_mutex_unlock(&job->lock);
    if (started > 0)
        watch(job, clock_seconds());
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->changed);
    if (started == 0)
        return err_set(err, ERR_MEMORY, tr("无法启动线程: %s", "cannot start a thread: %s"), strerror(code));
    if (job->failed)
        *err = job->err;
    return !job->failed;
}

static bool make_folder(const char *path, struct err *err)
{
    struct stat st;

    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return true;
    return err_set(err, ERR_IO, tr("无法创建目录 %s: %s", "cannot make folder %s: %s"), path, strerror(errno));
}

/* The folder and those above it. */
static bool make_path(const char *path, struct err *err)
{
    char part[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof part)
        return path_too_long(err);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (!make_folder(part, err))
            return false;
    }
    return true;
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    bool empty = true;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            empty = false;
    if (dir)
        closedir(dir);
    return empty;
}

static bool make_folders(const struct synth_options *options, struct err *err)
{
    if (!options->force && !is_empty(options->out))
        return err_set(err, ERR_CONFLICT,
                       tr("目录 %s 不是空的 (用 --force 仍然写入)", "folder %s is not empty (--force writes into it)"),
                       options->out);
    for (int split = 0; split < 2; split++)
        for (size_t index = 0; index < (size_t)options->classes; index++) {
            char name[32], path[PATH_MAX];

            if (split == 1 && options->val == 0)
                break;
            class_name(options, index, name);
            if (snprintf(path, sizeof path, "%s/%s/%s", options->out, splits[split], name) >= (int)sizeof path)
                return path_too_long(err);
            if (!(index == 0 ? make_path(path, err) : make_folder(path, err)))
                return false;
        }
    return true;
}

/* OUT/classes.csv: what the types are. */
static bool write_types(const struct synth_options *options, struct err *err)
{
    char path[PATH_MAX], name[32];
    FILE *file;

    if (snprintf(path, sizeof path, "%s/classes.csv", options->out) >= (int)sizeof path)
        return path_too_long(err);
    file = fopen(path, "we");
    if (!file)
        return err_set(err, ERR_IO, tr("无法写入 %s: %s", "cannot write %s: %s"), path, strerror(errno));
    fputs("class,hop_bandwidth_mhz,hop_duration_ms,hop_period_ms,hop_channels,hop_span_mhz,hop_pattern,"
          "video_bandwidth_mhz,video_length_ms,video_period_ms\n",
          file);
    for (size_t i = 0; i < (size_t)options->classes; i++) {
        struct drone_type t = synth_drone_type(i, options->rate * 1e6);

        class_name(options, i, name);
        fprintf(file, "%s,%.2f,%.3f,%.3f,%d,%.1f,%s,%.2f,%.3f,%.3f\n", name, t.hop_bandwidth / 1e6,
                t.hop_duration * 1e3, t.hop_period * 1e3, t.hop_channels, t.hop_span / 1e6,
                synth_pattern_name(t.hop_pattern), t.video_bandwidth / 1e6, t.video_length * 1e3, t.video_period * 1e3);
    }
    if (fclose(file) != 0)
        return err_set(err, ERR_IO, tr("无法写入 %s: %s", "cannot write %s: %s"), path, strerror(errno));
    return true;
}

static bool check(const struct synth_options *options, struct err *err)
{
    if (!options->out || !*options->out)
        return err_set(err, ERR_INVALID, tr("缺少 --out 目录", "--out FOLDER is missing"));
    if (strcmp(options->format, "png") != 0 && strcmp(options->format, "jpg") != 0)
        return err_set(err, ERR_INVALID,
                       tr("--format 必须是 png 或 jpg，而不是 \"%s\"", "--format must be png or jpg, not \"%s\""),
                       options->format);
    return true;
}

static bool synth(const struct synth_options *options, struct err *err)
{
    struct job job = {.options = options,
                      .config = {.rate = options->rate * 1e6,
                                 .duration = options->duration * 1e-3,
                                 .snr = options->snr,
                                 .window = (int)options->window,
                                 .size = (int)options->size,
                                 .seed = (uint64_t)options->seed},
                      .count = (size_t)(options->classes * (options->train + options->val))};
    double started = clock_seconds();

    if (!make_folders(options, err) || !write_types(options, err) || !run(&job, err))
        return false;
    printf(tr("%zu 张 %dx%d 图像: %d 类，每类 %d 张训练、%d 张验证，信噪比 %g dB，%.1f MB，用时 %.1f 秒\n",
              "%zu pictures of %dx%d: %d classes with %d for training and %d for validation each, %g dB, %.1f MB, %.1f "
              "s\n"),
           job.done, job.config.size, job.config.size, (int)options->classes, (int)options->train, (int)options->val,
           options->snr, (double)job.bytes / 1e6, clock_seconds() - started);
    printf("%s/train\n", options->out);
    if (options->val > 0)
        printf("%s/valid\n", options->out);
    return true;
}

static void help(void)
{
    struct buf text;

    buf_init(&text, 1 << 16);
    fields_help(&synth_table, &text);
    printf(tr("用法: rfuav synth --out 目录 [选项]\n"
              "用模拟的无人机无线电信号生成带标签的频谱图数据集\n\n%s",
              "usage: rfuav synth --out FOLDER [OPTIONS]\n"
              "makes a labelled data set of spectrograms by simulating drone radios\n\n%s"),
           text.data ? text.data : "");
    buf_release(&text);
}

int command_synth(int argc, char **argv)
{
    struct synth_options options = {0};
    struct arena *arena = arena_new(0);
    struct err err;
    int status = 0;

    if (option_help(argc, argv)) {
        help();
    } else if (!arena || !fields_defaults(&synth_table, &options, arena)) {
        err_set(&err, ERR_MEMORY, tr("内存不足", "out of memory"));
        status = 1;
    } else if (!fields_args(&synth_table, &argc, argv, &options, arena, &err) ||
               !options_end(argc, argv, 0, 0, "", &err) || !check(&options, &err)) {
        status = 2;
    } else if (!synth(&options, &err)) {
        status = 1;
    }
    if (status)
        fprintf(stderr, "rfuav synth: %s\n", err.message);
    arena_free(arena);
    return status;
}
