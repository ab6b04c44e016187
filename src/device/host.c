/* host.c - processor and memory, from /proc and /sys */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/internal.h"

/* A shorter time than this many ticks (10 ms each) says nothing about a load. */
enum { TICKS_MIN = 4 };

struct ticks {
    unsigned long long busy, all;
};

struct host_sampler {
    struct host_info info;
    struct ticks whole, *each; /* (cores) at the sample before */
    double *percent;           /* (cores) */
};

/* One line of /proc/stat: "cpu3 user nice system idle iowait irq softirq steal guest guest_nice"; guest time is in
 * user time already. */
static bool parse_ticks(const char *line, struct ticks *ret)
{
    unsigned long long t[8] = {0};

    if (sscanf(line, "%*s %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
               &t[7]) < 4)
        return false;
    *ret = (struct ticks){0};
    for (int i = 0; i < 8; i++) {
        ret->all += t[i];
        ret->busy += i == 3 || i == 4 ? 0 : t[i];
    }
    return true;
}

/* Percent busy since *before, which moves on; too short a time keeps the old value. */
static void update_percent(double *percent, struct ticks *before, const struct ticks *now)
{
    double all = (double)now->all - (double)before->all, busy = (double)now->busy - (double)before->busy;

    if (all < TICKS_MIN)
        return;
    *percent = busy < 0 ? 0 : busy > all ? 100 : 100 * busy / all;
    *before = *now;
}

static void sample_stat(struct host_sampler *sampler)
{
    FILE *file = fopen("/proc/stat", "re");
    char line[512];
    struct ticks now;
    int core = 0;

    while (file && fgets(line, sizeof line, file) && strncmp(line, "cpu", 3) == 0)
        if (!parse_ticks(line, &now))
            break;
        else if (line[3] == ' ')
            update_percent(&sampler->info.percent, &sampler->whole, &now);
        else if (core < sampler->info.cores)
            update_percent(&sampler->percent[core], &sampler->each[core], &now), core++;
    if (file)
        fclose(file);
}

static void sample_memory(struct host_info *info)
{
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long kb;
    char line[256];

    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemTotal: %llu", &kb) == 1)
            info->memory_total = kb << 10;
        else if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
            info->memory_available = kb << 10;
    if (file)
        fclose(file);
}

/* What the kernel steers to now, or 0: machines without frequency control have no such file. */
static double scaling_mhz(void)
{
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "re");
    double khz = 0;

    if (file && fscanf(file, "%lf", &khz) != 1)
        khz = 0;
    if (file)
        fclose(file);
    return khz / 1000;
}

static const char *value_of(char *line, const char *key)
{
    char *colon = strchr(line, ':');

    if (strncmp(line, key, strlen(key)) != 0 || !colon)
        return NULL;
    for (colon++; *colon == ' ' || *colon == '\t'; colon++)
        ;
    colon[strcspn(colon, "\n")] = 0;
    return colon;
}

/* /proc/cpuinfo: model, mean MHz, and the cores that are not one another's hyperthreads. */
static void read_cpuinfo(struct host_info *info)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    int *cores = calloc((size_t)info->cores, sizeof *cores), count = 0, package = 0, readings = 0;
    char line[1024];
    double mhz = 0;

    while (file && cores && fgets(line, sizeof line, file)) {
        const char *value;

        if ((value = value_of(line, "model name")) && !info->cpu_model[0])
            snprintf(info->cpu_model, sizeof info->cpu_model, "%s", value);
        else if ((value = value_of(line, "cpu MHz")))
            mhz += strtod(value, NULL), readings++;
        else if ((value = value_of(line, "physical id")))
            package = atoi(value);
        else if ((value = value_of(line, "core id"))) {
            int id = package * 65536 + atoi(value), known = 0;

            while (known < count && cores[known] != id)
                known++;
            if (known == count && count < info->cores)
                cores[count++] = id;
        }
    }
    if (file)
        fclose(file);
    free(cores);
    info->physical_cores = count ? count : info->cores;
    info->freq_mhz = readings ? mhz / readings : 0;
}

struct host_sampler *host_sampler_new(void)
{
    struct host_sampler *sampler = calloc(1, sizeof *sampler);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!sampler)
        return NULL;
    sampler->info.cores = cores > 0 ? (int)cores : 1;
    sampler->each = calloc((size_t)sampler->info.cores, sizeof *sampler->each);
    sampler->percent = calloc((size_t)sampler->info.cores, sizeof *sampler->percent);
    if (!sampler->each || !sampler->percent)
        return host_sampler_free(sampler);
    sampler->info.per_cpu_percent = sampler->percent;
    read_cpuinfo(&sampler->info);
    host_sample(sampler);
    return sampler;
}

void host_sample(struct host_sampler *sampler)
{
    double mhz = scaling_mhz();

    sample_stat(sampler);
    sample_memory(&sampler->info);
    if (mhz > 0)
        sampler->info.freq_mhz = mhz;
    if (getloadavg(sampler->info.load_avg, 3) < 3)
        memset(sampler->info.load_avg, 0, sizeof sampler->info.load_avg);
}

const struct host_info *host_sampled(const struct host_sampler *sampler)
{
    return &sampler->info;
}

struct host_sampler *host_sampler_free(struct host_sampler *sampler)
{
    if (sampler) {
        free(sampler->each);
        free(sampler->percent);
        free(sampler);
    }
    return NULL;
}
