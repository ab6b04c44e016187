/* synth.c - see synth.h */
#include "data/synth.h"

#include <math.h>
#include <stdlib.h>

#include "data/spectrogram.h"

static const double VIDEO_SPACING = 24414, WIFI_SPACING = 312500, WIFI_BANDWIDTH = 16.25e6; /* Hz */

struct synth {
    struct synth_config config;
    struct signal drone, band; /* the drone's own signals; everything */
    struct ofdm *video, *wifi;
    struct spectrogram *spectrogram;
    float *power;
    struct image image;
};

/* Dimension d of point i of the R sequence, which fills the unit cube evenly for any number of points.
 * Source: M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018; x^(D+1) = x + 1, D = 7. */
static double even_point(size_t i, int d)
{
    double value = 0.5 + (double)(i + 1) * pow(1.0969815577985598, -(d + 1));

    return value - floor(value);
}

/* From `low` to `high` in equal factors. */
static double spread(double at, double low, double high)
{
    return low * pow(high / low, at);
}

struct drone_type synth_drone_type(size_t index, double rate)
{
    struct drone_type type = {0};
    double duty = 0.35 + 0.5 * even_point(index, 2), video_duty = 0.4 + 0.45 * even_point(index, 5);

    type.hop_bandwidth = spread(even_point(index, 0), 0.007, 0.045) * rate;
    type.hop_duration = spread(even_point(index, 1), 0.07e-3, 0.5e-3);
    type.hop_period = type.hop_duration / duty;
    type.hop_span = (0.3 + 0.5 * even_point(index, 3)) * rate;
    type.hop_channels = 5 + (int)(index % 3) * 8;
    type.hop_pattern = (enum hop_pattern)(index % HOP_PATTERNS);
    if (index % 7 != 5) { /* the others have a control link only */
        type.video_bandwidth = spread(even_point(index, 4), 0.05, 0.24) * rate;
        type.video_length = spread(even_point(index, 6), 0.15e-3, 1.2e-3);
        type.video_period = type.video_length / video_duty;
    }
    return type;
}

const char *synth_pattern_name(enum hop_pattern pattern)
{
    static const char *const names[HOP_PATTERNS] = {"random", "up", "two bands", "down"};

    return names[pattern];
}

static double uniform(struct random *random, double low, double high)
{
    return low + (high - low) * random_uniform(random);
}

static double from_db(double db)
{
    return pow(10, db / 10);
}

/* The channel of hop h: the sequence is the type's own, a recording starts anywhere in it. */
static int hop_channel(const struct drone_type *type, size_t index, uint32_t h)
{
    int n = type->hop_channels;
    struct random random;

    switch (type->hop_pattern) {
    case HOP_UP:
        return (int)(h % (uint32_t)n);
    case HOP_DOWN:
        return n - 1 - (int)(h * 3 % (uint32_t)n);
    case HOP_TWO_BANDS: { /* by turns among the lowest and the highest third */
        int third = (n + 2) / 3, within = (int)(h / 2 * 2 % (uint32_t)third);

        return h % 2 ? n - 1 - within : within;
    }
    default:
        random_init(&random, index, 1);
        random.counter = h;
        return (int)random_below(&random, (uint32_t)n);
    }
}

/* How many bursts that begin at start, start + period, … begin before the recording's end. */
static uint32_t bursts(const struct synth *synth, double start, double period)
{
    return (uint32_t)ceil((synth->config.duration - start) / period);
}

static void add_hops(struct synth *synth, const struct drone_type *type, size_t index, struct random *random)
{
    double rate = synth->config.rate, room = rate * 0.94 - type->hop_span - type->hop_bandwidth;
    double low = -type->hop_span / 2 + uniform(random, -0.5, 0.5) * (room > 0 ? room : 0);
    double start = -type->hop_period * random_uniform(random), power = from_db(uniform(random, -3, 3));
    uint32_t first = random_u32(random) >> 8, count = bursts(synth, start, type->hop_period);

    for (uint32_t h = 0; h < count; h++) {
        double channel = (double)hop_channel(type, index, first + h) / (type->hop_channels - 1);
        struct burst burst = {start + h * type->hop_period, type->hop_duration, low + channel * type->hop_span,
                              type->hop_bandwidth, power};

        signal_add_gfsk(&synth->drone, &burst, random);
    }
}

static void add_video(struct synth *synth, const struct drone_type *type, struct random *random)
{
    double room = synth->config.rate * 0.94 - type->video_bandwidth;
    double start = -type->video_period * random_uniform(random);
    uint32_t count = bursts(synth, start, type->video_period);
    struct burst burst = {.length = type->video_length,
                          .center = uniform(random, -0.5, 0.5) * room,
                          .bandwidth = type->video_bandwidth,
                          .power = from_db(uniform(random, -1, 3))};

    for (uint32_t i = 0; i < count; i++) {
        burst.start = start + i * type->video_period;
        signal_add_ofdm(&synth->drone, synth->video, &burst, random);
    }
}

/* A network on one of the 5 MHz channels: frames of all lengths with pauses, some answered by a short one. */
static void add_wifi(struct synth *synth, double power, struct random *random)
{
    double rate = synth->config.rate, width = fmin(WIFI_BANDWIDTH, rate * 0.4);
    int side = (int)((rate - width) / 5e6 / 2); /* channels at each side of the middle */
    struct burst burst = {
        .center = 5e6 * ((int)random_below(random, 2 * (uint32_t)side + 1) - side), .bandwidth = width, .power = power};
    double t = -uniform(random, 0, 1e-3), busy = uniform(random, 0.3e-3, 1.8e-3);

    while (t < synth->config.duration) {
        burst.start = t;
        burst.length = spread(random_uniform(random), 0.05e-3, 0.8e-3);
        signal_add_ofdm(&synth->band, synth->wifi, &burst, random);
        t += burst.length + 16e-6;
        if (random_below(random, 2)) { /* acknowledgement */
            burst.start = t;
            burst.length = 30e-6;
            signal_add_ofdm(&synth->band, synth->wifi, &burst, random);
        }
        t += 60e-6 - busy * log(1 - random_uniform(random));
    }
}

/* Bluetooth-like: 1 MHz hops in slots of 625 µs anywhere in the band. */
static void add_short_hops(struct synth *synth, double power, struct random *random)
{
    const double slot = 625e-6, start = -uniform(random, 0, slot);
    uint32_t count = bursts(synth, start, slot);

    for (uint32_t i = 0; i < count; i++) {
        struct burst burst = {start + i * slot, 366e-6, uniform(random, -0.47, 0.47) * synth->config.rate, 1e6, power};

        signal_add_gfsk(&synth->band, &burst, random);
    }
}

/* What else is on the air; powers relative to the drone's. */
static void add_background(struct synth *synth, double power, struct random *random)
{
    double which = random_uniform(random);
    int networks = which < 0.25 ? 0 : which < 0.75 ? 1 : 2;

    for (int i = 0; i < networks; i++)
        add_wifi(synth, power * from_db(uniform(random, -12, 1)), random);
    if (random_uniform(random) < 0.4)
        add_short_hops(synth, power * from_db(uniform(random, -14, -2)), random);
    if (random_uniform(random) < 0.3)
        signal_add_tone(&synth->band, uniform(random, -0.45, 0.45) * synth->config.rate,
                        power * from_db(uniform(random, -32, -22)));
}

const struct signal *synth_record(struct synth *synth, size_t index, int split, size_t i)
{
    struct drone_type type = synth_drone_type(index, synth->config.rate);
    struct random random;
    double power;
    float angle;

    random_init(&random, synth->config.seed, (uint64_t)split << 56 ^ (uint64_t)index << 32 ^ i);
    signal_clear(&synth->drone);
    signal_clear(&synth->band);
    add_hops(synth, &type, index, &random);
    if (type.video_bandwidth > 0)
        add_video(synth, &type, &random);
    angle = (float)uniform(&random, 0, 2 * M_PI);
    signal_add_echo(&synth->drone, 1 + random_below(&random, 24),
                    (float)uniform(&random, 0, 0.6) * (cosf(angle) + sinf(angle) * I));
    power = signal_active_power(&synth->drone);
    if (power == 0) /* a recording shorter than a pause */
        power = 1;
    add_background(synth, power, &random);
    signal_add(&synth->band, &synth->drone, 1);
    signal_add_noise(&synth->band, power / from_db(synth->config.snr), &random);
    return &synth->band;
}

const struct image *synth_picture(struct synth *synth)
{
    int size = synth->config.size;

    spectrogram_power(synth->spectrogram, &synth->band, size, size, synth->power);
    spectrogram_colors(synth->power, (size_t)size * (size_t)size, synth->image.rgb);
    return &synth->image;
}

bool synth_open(const struct synth_config *config, struct synth **ret, struct err *err)
{
    size_t count = (size_t)(config->rate * config->duration), size = (size_t)config->size;
    size_t video = (size_t)fmax(64, 2 * round(config->rate / VIDEO_SPACING / 2));
    size_t wifi = (size_t)fmax(16, 2 * round(config->rate / WIFI_SPACING / 2));
    struct synth *synth = calloc(1, sizeof *synth);

    if (!synth)
        return err_set(err, ERR_MEMORY, "no memory for a simulator");
    synth->config = *config;
    synth->power = calloc(size * size, sizeof *synth->power);
    synth->image = (struct image){config->size, config->size, calloc(size * size, 3)};
    if (!synth->power || !synth->image.rgb)
        err_set(err, ERR_MEMORY, "no memory for a picture of %d x %d", config->size, config->size);
    else if (signal_init(&synth->drone, count, config->rate, err) &&
             signal_init(&synth->band, count, config->rate, err) && ofdm_open(video, video / 16, &synth->video, err) &&
             ofdm_open(wifi, wifi / 4, &synth->wifi, err) &&
             spectrogram_open((size_t)config->window, (size_t)config->window / 2, &synth->spectrogram, err)) {
        *ret = synth;
        return true;
    }
    synth_free(synth);
    return false;
}

struct synth *synth_free(struct synth *synth)
{
    if (!synth)
        return NULL;
    signal_release(&synth->drone);
    signal_release(&synth->band);
    ofdm_free(synth->video);
    ofdm_free(synth->wifi);
    spectrogram_free(synth->spectrogram);
    free(synth->power);
    image_release(&synth->image);
    free(synth);
    return NULL;
}
