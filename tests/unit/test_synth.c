/* test_synth.c - the building blocks of simulated recordings against what theory says, the drone types, the command. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "commands.h"
#include "data/image.h"
#include "data/spectrogram.h"
#include "data/synth.h"

static const double RATE = 100e6;

static bool near(double value, double expected, double relative)
{
    return fabs(value - expected) <= relative * fabs(expected);
}

static double mean_power(const struct signal *signal)
{
    double sum = 0;

    for (size_t i = 0; i < signal->count; i++)
        sum += creal(signal->samples[i] * conjf(signal->samples[i]));
    return sum / (double)signal->count;
}

static struct signal silence(size_t count)
{
    struct signal signal;
    struct err err;

    assert_true(signal_init(&signal, count, RATE, &err));
    return signal;
}

/* Share of the energy within `bandwidth` of `center`, from a direct Fourier sum over bands of 1024 bins. */
static double share_within(const struct signal *signal, double center, double bandwidth)
{
    enum { BINS = 1024 };
    struct spectrogram *spectrogram;
    static float power[BINS];
    double all = 0, within = 0;
    struct err err;

    assert_true(spectrogram_open(BINS, BINS / 2, &spectrogram, &err));
    spectrogram_power(spectrogram, signal, 1, BINS, power);
    for (int row = 0; row < BINS; row++) {
        double frequency = (BINS / 2.0 - 1 - row) * RATE / BINS;

        all += power[row];
        if (fabs(frequency - center) <= bandwidth / 2)
            within += power[row];
    }
    spectrogram_free(spectrogram);
    return within / all;
}

static void test_noise(void **state)
{
    struct signal signal = silence(200000);
    struct random random;
    double real = 0, fourth = 0;

    (void)state;
    random_init(&random, 7, 0);
    signal_add_noise(&signal, 3, &random);
    assert_true(near(mean_power(&signal), 3, 0.02));
    for (size_t i = 0; i < signal.count; i++) {
        double x = crealf(signal.samples[i]);

        real += x * x;
        fourth += x * x * x * x;
    }
    real /= (double)signal.count;
    fourth /= (double)signal.count;
    assert_true(near(real, 1.5, 0.02));                               /* half of it in each part */
    assert_true(near(fourth, 3 * real * real, 0.05));                 /* Gaussian */
    assert_true(near(share_within(&signal, 20e6, 25e6), 0.25, 0.05)); /* white */
    signal_release(&signal);
}

static void test_bursts(void **state)
{
    struct burst burst = {.start = 0.2e-3, .length = 0.5e-3, .center = -17e6, .bandwidth = 10e6, .power = 2};
    struct signal signal = silence(100000);
    struct random random;
    struct ofdm *ofdm;
    struct err err;

    (void)state;
    random_init(&random, 1, 0);
    assert_true(ofdm_open(4096, 256, &ofdm, &err));
    signal_add_ofdm(&signal, ofdm, &burst, &random);
    assert_true(near(signal_active_power(&signal), 2, 0.05));
    assert_true(near(mean_power(&signal), 1, 0.05)); /* on for half of the millisecond */
    assert_true(share_within(&signal, burst.center, 10.4e6) > 0.97);
    assert_true(share_within(&signal, burst.center, 5e6) < 0.6);
    assert_true(signal.samples[19999] == 0 && signal.samples[70000] == 0 && signal.samples[20000] != 0);

    signal_clear(&signal);
    burst.bandwidth = 2e6;
    signal_add_gfsk(&signal, &burst, &random);
    assert_true(near(signal_active_power(&signal), 2, 0.02));
    assert_true(share_within(&signal, burst.center, 2e6) > 0.97);
    assert_true(share_within(&signal, burst.center, 0.6e6) < 0.9);

    signal_clear(&signal);
    burst.start = -0.3e-3; /* cut at both ends, or away altogether */
    signal_add_ofdm(&signal, ofdm, &burst, &random);
    assert_true(near(mean_power(&signal), 0.4, 0.1));
    burst.start = 5;
    signal_add_gfsk(&signal, &burst, &random);
    burst.start = -5;
    signal_add_ofdm(&signal, ofdm, &burst, &random);
    assert_true(near(mean_power(&signal), 0.4, 0.1));
    ofdm_free(ofdm);
    signal_release(&signal);
}

/* A tone of power 1 is a line at its frequency with the value 1: |Z|² over sum(window)². */
static void test_spectrogram(void **state)
{
    enum { W = 20, H = 64 };
    struct signal signal = silence(32000);
    struct spectrogram *spectrogram;
    float power[W * H];
    uint8_t rgb[3 * W * H];
    int row = 0;
    struct err err;

    (void)state;
    signal_add_tone(&signal, 25e6, 1); /* three quarters up */
    assert_true(spectrogram_open(H, H / 2, &spectrogram, &err));
    spectrogram_power(spectrogram, &signal, W, H, power);
    for (int y = 0; y < H; y++)
        if (power[y * W + W / 2] > power[row * W + W / 2])
            row = y;
    assert_int_equal(row, H / 4 - 1);
    assert_true(near(power[row * W + W / 2], 1, 0.01));
    spectrogram_colors(power, W * H, rgb);
    assert_int_equal(rgb[3 * (row * W + W / 2)], 127); /* the darkest red of jet */
    assert_int_equal(rgb[3 * (row * W + W / 2) + 2], 0);
    assert_int_equal(rgb[3 * (50 * W + 3)], 0); /* and blue */
    spectrogram_free(spectrogram);
    signal_release(&signal);
}

static struct synth *open_synth(double snr, uint64_t seed)
{
    struct synth_config config = {.rate = RATE, .duration = 2e-3, .snr = snr, .window = 512, .size = 48, .seed = seed};
    struct synth *synth;
    struct err err;

    assert_true(synth_open(&config, &synth, &err));
    return synth;
}

/* The same recording at two ratios differs by its noise alone, ten times as strong at 10 dB less. */
static void test_snr(void **state)
{
    struct synth *clean = open_synth(200, 3), *noisy = open_synth(10, 3), *noisier = open_synth(0, 3);
    const struct signal *a = synth_record(clean, 1, 0, 5), *b = synth_record(noisy, 1, 0, 5);
    const struct signal *c = synth_record(noisier, 1, 0, 5);
    double ten = 0, zero = 0;

    (void)state;
    for (size_t i = 0; i < a->count; i++) {
        float complex w = b->samples[i] - a->samples[i], v = c->samples[i] - a->samples[i];

        ten += creal(w * conjf(w));
        zero += creal(v * conjf(v));
    }
    ten /= (double)a->count;
    zero /= (double)a->count;
    assert_true(near(zero / ten, 10, 0.001));
    /* hops of about 1 and video of about 1 to 2 times power 1, with an echo of up to 0.36: the noise at 0 dB */
    assert_in_range((int)(zero * 100), 40, 800);
    synth_free(clean);
    synth_free(noisy);
    synth_free(noisier);
}

static void test_deterministic(void **state)
{
    struct synth *a = open_synth(10, 3), *b = open_synth(10, 3), *other = open_synth(10, 4);
    size_t bytes = 48 * 48 * 3;

    (void)state;
    synth_record(b, 6, 1, 2); /* what was made before does not matter */
    for (size_t index = 0; index < 4; index++) {
        synth_record(a, index, 0, 9);
        synth_record(b, index, 0, 9);
        synth_record(other, index, 0, 9);
        assert_memory_equal(synth_picture(a)->rgb, synth_picture(b)->rgb, bytes);
        assert_memory_not_equal(synth_picture(a)->rgb, synth_picture(other)->rgb, bytes);
        synth_record(b, index, 1, 9);
        assert_memory_not_equal(synth_picture(a)->rgb, synth_picture(b)->rgb, bytes);
    }
    synth_free(a);
    synth_free(b);
    synth_free(other);
}

/* How different two types are: the greatest ratio between their parameters. */
static double difference(const struct drone_type *a, const struct drone_type *b)
{
    const double pairs[][2] = {{a->hop_bandwidth, b->hop_bandwidth},     {a->hop_duration, b->hop_duration},
                               {a->hop_period, b->hop_period},           {a->hop_span, b->hop_span},
                               {a->video_bandwidth, b->video_bandwidth}, {a->video_length, b->video_length},
                               {a->video_period, b->video_period}};
    double greatest = 1;

    if (a->hop_pattern != b->hop_pattern || a->hop_channels != b->hop_channels)
        return 2;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        double low = fmin(pairs[i][0], pairs[i][1]), high = fmax(pairs[i][0], pairs[i][1]);

        if (high > 0)
            greatest = fmax(greatest, low > 0 ? high / low : 2);
    }
    return greatest;
}

static void test_types_differ(void **state)
{
    (void)state;
    for (size_t i = 0; i < SYNTH_MAX_CLASSES; i++) {
        struct drone_type a = synth_drone_type(i, RATE);

        assert_true(a.hop_duration < a.hop_period && a.hop_bandwidth + a.hop_span < RATE);
        assert_true(a.video_length <= a.video_period && a.video_bandwidth < RATE / 2);
        for (size_t k = 0; k < i; k++) {
            struct drone_type b = synth_drone_type(k, RATE);

            assert_true(difference(&a, &b) > (i < 100 ? 1.5 : 1.2));
        }
    }
}

/* Runs the command with words separated by blanks; its own words go nowhere. */
static int run_command(const char *line)
{
    char text[512], *argv[32], *rest = NULL;
    int argc = 0, status, out = dup(1), error = dup(2);

    snprintf(text, sizeof text, "synth %s", line);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    argv[argc] = NULL;
    fflush(NULL);
    assert_non_null(freopen("/dev/null", "w", stdout));
    assert_non_null(freopen("/dev/null", "w", stderr));
    status = command_synth(argc, argv);
    fflush(NULL);
    dup2(out, 1);
    dup2(error, 2);
    close(out);
    close(error);
    return status;
}

static void test_command(void **state)
{
    char root[] = "/tmp/rfuav-synth-XXXXXX", line[400], path[128];
    struct image a, b;
    struct stat st;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(line, sizeof line, "--out %s/a/b --classes 3 --train 2 --val 1 --size 40 --threads 1 --iq", root);
    assert_int_equal(run_command(line), 0);
    assert_int_equal(run_command(line), 1); /* not empty now */
    snprintf(line, sizeof line, "--out=%s/c --classes 3 --train 2 --val 1 --size 40 --threads 3 --format png", root);
    assert_int_equal(run_command(line), 0);
    for (int c = 1; c <= 3; c++) {
        snprintf(path, sizeof path, "%s/a/b/valid/Drone%02d/Drone%02d_0001.png", root, c, c);
        assert_true(image_read(path, &a, &err));
        snprintf(path, sizeof path, "%s/c/valid/Drone%02d/Drone%02d_0001.png", root, c, c);
        assert_true(image_read(path, &b, &err));
        assert_int_equal(a.width, 40);
        assert_memory_equal(a.rgb, b.rgb, 40 * 40 * 3);
        image_release(&a);
        image_release(&b);
    }
    snprintf(path, sizeof path, "%s/a/b/train/Drone03/Drone03_0002.iq", root);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 400000 * 8);
    snprintf(path, sizeof path, "%s/c/classes.csv", root);
    assert_int_equal(access(path, R_OK), 0);
    snprintf(line, sizeof line, "--out %s/c --classes 3 --train 1 --val 0 --size 40 --force --format jpg", root);
    assert_int_equal(run_command(line), 0);
    snprintf(path, sizeof path, "%s/c/train/Drone01/Drone01_0001.jpg", root);
    assert_int_equal(access(path, R_OK), 0);

    assert_int_equal(run_command("--classes 3"), 2);
    snprintf(line, sizeof line, "--out %s/d --format gif", root);
    assert_int_equal(run_command(line), 2);
    snprintf(line, sizeof line, "--out %s/d --classes 0", root);
    assert_int_equal(run_command(line), 2);
    snprintf(line, sizeof line, "--out %s/d --nonsense", root);
    assert_int_equal(run_command(line), 2);
    assert_int_equal(run_command("--out /proc/none --classes 1"), 1);
    assert_int_equal(run_command("--help"), 0);
    snprintf(line, sizeof line, "rm -rf '%s'", root);
    assert_int_equal(system(line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise),   cmocka_unit_test(test_bursts),        cmocka_unit_test(test_spectrogram),
        cmocka_unit_test(test_snr),     cmocka_unit_test(test_deterministic), cmocka_unit_test(test_types_differ),
        cmocka_unit_test(test_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
