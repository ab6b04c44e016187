/* cudnn_search.c - the fastest plan for a convolution. cuDNN's heuristics give a list of engine configurations, the
 * likely best first; those that may be used are numbered, the first few are timed on the device, and the number of the
 * fastest is remembered. A deterministic stream takes the first that works. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cuda/cudnn_cache.h"
#include "engine/cuda/cudnn_plan.h"

enum {
    MOST_COMPILED = 1,  /* of those that cuDNN compiles at run time, which takes it a third of a second each */
    HOPELESS = 4,       /* so many times slower than the best: those behind it are not tried */
    MOST_CONFIGS = 128, /* taken from each list */
    MOST_TIMED = 10,    /* timed for a problem */
    START_US = 1000,    /* what the first run may take longer */
    RUNS = 5,           /* timed runs of each, after one that is not */
    DELAY_US = 120,     /* the device waits so long, while the host enqueues the runs */
    SEARCH_MS = 1500,   /* no new candidate is begun after so long */
    MOST_NOTES = 32,
};

struct search {
    struct stream *stream;
    const struct conv_problem *problem;
    struct cudnn_bag *bag;
    cudnnBackendDescriptor_t configs[2 * MOST_CONFIGS];
    bool compiled[2 * MOST_CONFIGS]; /* at run time */
    int count;
};

static void problem_text(const struct stream *stream, const struct conv_problem *p, char *text, size_t size)
{
    static const char *const names[] = {"forward", "data", "weight"};
    const struct direct_launch *s = &p->shape;

    snprintf(text, size, "%s %s%s%s%s%s n%d %dx%dx%d %dx%dx%d k%dx%d s%dx%d p%dx%d g%d", names[p->pass],
             s->number == NUMBER_BF16 ? "bf16"
             : stream->allow_tf32     ? "tf32"
                                      : "f32",
             p->pass == CONV_BACKWARD_WEIGHT && s->weight_number != s->number ? " to f32" : "",
             !p->bias                      ? ""
             : p->bias_number == s->number ? " bias"
                                           : " f32 bias",
             p->residual ? " residual" : "", p->relu ? " relu" : "", s->n, s->h, s->w, s->c, s->oh, s->ow, s->o,
             s->kernel[0], s->kernel[1], s->stride[0], s->stride[1], s->padding[0], s->padding[1], s->groups);
}

/* May this configuration be used: as exact as was asked for, and the same bits each time? */
static bool allowed(struct search *s, cudnnBackendDescriptor_t config, bool *compiled)
{
    cudnnBackendDescriptor_t engine = cudnn_make(s->bag, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendNumericalNote_t notes[MOST_NOTES];
    cudnnBackendBehaviorNote_t behaviors[MOST_NOTES];
    int64_t count = 0;

    if (s->bag->status != CUDNN_STATUS_SUCCESS ||
        libs.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                      &engine) != CUDNN_STATUS_SUCCESS ||
        libs.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, MOST_NOTES,
                                      &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count; i++) {
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return false;
        if (s->problem->shape.number == NUMBER_F32 &&
            ((notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && !s->stream->allow_tf32) ||
             notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS))
            return false;
    }
    *compiled = false;
    if (libs.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, MOST_NOTES,
                                      &count, behaviors) == CUDNN_STATUS_SUCCESS)
        for (int64_t i = 0; i < count; i++)
            *compiled = *compiled || behaviors[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    return true;
}

/* Appends the allowed configurations of one list. */
static void ask_heuristics(struct search *s, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode)
{
    cudnnBackendDescriptor_t heuristics = cudnn_make(s->bag, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnnBackendDescriptor_t configs[MOST_CONFIGS];
    int64_t count = 0;

    cudnn_set(s->bag, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    cudnn_set(s->bag, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    cudnn_finalize(s->bag, heuristics);
    if (s->bag->status != CUDNN_STATUS_SUCCESS ||
        libs.cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                      &count, NULL) != CUDNN_STATUS_SUCCESS) {
        s->bag->status = CUDNN_STATUS_SUCCESS; /* it has nothing to propose */
        return;
    }
    if (count > MOST_CONFIGS)
        count = MOST_CONFIGS;
    for (int64_t i = 0; i < count; i++)
        configs[i] = cudnn_make(s->bag, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (s->bag->status != CUDNN_STATUS_SUCCESS ||
        libs.cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                                      &count, configs) != CUDNN_STATUS_SUCCESS)
        return;
    for (int64_t i = 0; i < count; i++)
        if (allowed(s, configs[i], &s->compiled[s->count]))
            s->configs[s->count++] = configs[i];
}

/* Not every configuration that is proposed can be built. */
static bool build(struct search *s, int choice, struct conv_plan *ret)
{
    struct cudnn_bag *bag = s->bag;
    cudnnBackendDescriptor_t plan = cudnn_make(bag, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    int64_t workspace = 0, count;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* versions before 9.6 ask for the handle */
    cudnn_set(bag, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &s->stream->cudnn);
#pragma GCC diagnostic pop
    cudnn_set(bag, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
              &s->configs[choice]);
    cudnn_finalize(bag, plan);
    if (bag->status != CUDNN_STATUS_SUCCESS ||
        libs.cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                      &workspace) != CUDNN_STATUS_SUCCESS ||
        workspace < 0 || (size_t)workspace > (size_t)MOST_WORKSPACE) {
        bag->status = CUDNN_STATUS_SUCCESS;
        return false;
    }
    *ret = (struct conv_plan){.plan = plan, .workspace = (size_t)workspace};
    return true;
}

/* Memory for the operands, one after the other, and workspace; filled with numbers. */
static bool trial_operands(struct search *s, struct conv_operands *ret, void **workspace, struct err *err)
{
    const struct direct_launch *d = &s->problem->shape;
    size_t x = (size_t)d->n * (size_t)d->h * (size_t)d->w * (size_t)d->c * sizeof(float);
    size_t y = (size_t)d->n * (size_t)d->oh * (size_t)d->ow * (size_t)d->o * sizeof(float);
    size_t w = (size_t)d->o * (size_t)d->kernel[0] * (size_t)d->kernel[1] * (size_t)d->c * sizeof(float);
    size_t bias = (size_t)d->o * sizeof(float);
    size_t sizes[] = {x, w, y, s->problem->residual ? y : 0, s->problem->bias ? bias : 0, (size_t)MOST_WORKSPACE},
           total = 0;
    size_t offsets[6];
    char *memory;

    for (int i = 0; i < 6; i++) {
        offsets[i] = total;
        if (d->number == NUMBER_BF16 && i != 4 && i != 5)
            sizes[i] /= 2;
        total += (sizes[i] + 511) / 512 * 512;
    }
    if (!stream_trial(s->stream, total, (void **)&memory, err) ||
        !cuda_ok(numbers_fill(s->stream->queue, d->number, memory, (int64_t)(offsets[4] / (d->number ? 2 : 4))),
                 "timing algorithms", err) ||
        !cuda_ok(numbers_fill(s->stream->queue, NUMBER_F32, memory + offsets[4], (int64_t)(sizes[4] / 4)),
                 "timing algorithms", err))
        return false;
    *ret = (struct conv_operands){
        .x = memory,
        .w = memory + offsets[1],
        .y = memory + offsets[2],
        .residual = s->problem->residual ? memory + offsets[3] : NULL,
        .bias = s->problem->bias ? memory + offsets[4] : NULL,
    };
    *workspace = memory + offsets[5];
    return true;
}

/* What is known while candidates are timed. */
struct trial {
    const char *text;
    struct conv_operands operands;
    void *workspace;
    cudaEvent_t events[2];
    double begin;
    float best;
    int choice;
};

/* Microseconds of `runs` runs together. */
static bool time_runs(struct search *s, const struct conv_plan *plan, const struct trial *t, int runs, float *us)
{
    cudaStream_t queue = s->stream->queue;
    struct err err;
    float ms = 0;
    bool ok = cudaEventRecord(t->events[0], queue) == cudaSuccess;

    for (int i = 0; i < runs && ok; i++)
        ok = conv_plan_run(s->stream, plan, &t->operands, t->workspace, &err);
    ok = ok && cudaEventRecord(t->events[1], queue) == cudaSuccess && cudaStreamSynchronize(queue) == cudaSuccess &&
         cudaEventElapsedTime(&ms, t->events[0], t->events[1]) == cudaSuccess;
    *us = ms * 1000;
    return ok;
}

/* Microseconds of one run; the runs are enqueued behind a pause, so that the host's time does not count. */
static bool time_plan(struct search *s, const struct conv_plan *plan, const struct trial *t, float *us)
{
    if (!time_runs(s, plan, t, 1, us))
        return false;
    if (t->choice != CACHE_NO_PLAN && *us > 2 * HOPELESS * t->best + START_US)
        return true; /* it will not get better than that */
    if (device_pause(s->stream->queue, DELAY_US) != cudaSuccess || !time_runs(s, plan, t, RUNS, us))
        return false;
    *us /= RUNS;
    return true;
}

static double milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* Times the candidates that cuDNN has ready, or those that it has to compile. */
static void time_candidates(struct search *s, struct trial *t, bool compiled, int most)
{
    bool verbose = getenv("RFUAV_CUDA_VERBOSE");

    for (int i = 0, timed = 0; i < s->count && timed < most && milliseconds() - t->begin < SEARCH_MS; i++) {
        double from = milliseconds();
        struct conv_plan plan;
        float us;

        if (s->compiled[i] != compiled || !build(s, i, &plan) || !time_plan(s, &plan, t, &us))
            continue;
        timed++;
        if (verbose)
            fprintf(stderr, "cudnn: %s: %d of %d%s: %.1f us, workspace %zu, %.0f ms to find out\n", t->text, i,
                    s->count, compiled ? " compiled" : "", (double)us, plan.workspace, milliseconds() - from);
        if (t->choice == CACHE_NO_PLAN || us < t->best) {
            t->best = us;
            t->choice = i;
        } else if (us > HOPELESS * t->best) {
            break;
        }
    }
}

/* The first that can be built and, where there is memory to try it on, works; better one that cuDNN has ready. */
static int first_of(struct search *s, const struct trial *t)
{
    struct conv_plan plan;
    float us;

    for (int compiled = 0; compiled < 2; compiled++)
        for (int i = 0; i < s->count; i++)
            if (s->compiled[i] == compiled && build(s, i, &plan) && (!t || time_runs(s, &plan, t, 1, &us)))
                return i;
    return CACHE_NO_PLAN;
}

/* The fastest. Those that are compiled at run time are tried when there is no other, or where the search is asked to be
 * thorough. */
static int fastest_of(struct search *s, struct trial *t)
{
    const char *wish = getenv("RFUAV_CUDA_SEARCH");
    bool thorough = wish && strcmp(wish, "full") == 0;

    time_candidates(s, t, false, MOST_TIMED);
    if (t->choice == CACHE_NO_PLAN || thorough)
        time_candidates(s, t, true, thorough ? MOST_TIMED : MOST_COMPILED);
    return t->choice;
}

/* The number of the configuration to take, or CACHE_NO_PLAN. */
static bool choose(struct search *s, const char *text, int *choice, bool *remember, struct err *err)
{
    struct trial t = {.text = text, .begin = milliseconds(), .choice = CACHE_NO_PLAN};

    *choice = CACHE_NO_PLAN;
    if (!s->count)
        return true;
    if (!trial_operands(s, &t.operands, &t.workspace, err)) {
        if (err->kind != ERR_MEMORY)
            return false;
        err->message[0] = '\0';
        *choice = first_of(s, NULL);
        *remember = false;
        return true;
    }
    if (!cuda_ok(cudaEventCreate(&t.events[0]), "an event", err) ||
        !cuda_ok(cudaEventCreate(&t.events[1]), "an event", err))
        return false;
    *choice = s->stream->deterministic ? first_of(s, &t) : fastest_of(s, &t);
    cudaEventDestroy(t.events[0]);
    cudaEventDestroy(t.events[1]);
    /* on a broken GPU nothing works: that must not be remembered */
    return *choice != CACHE_NO_PLAN || !cuda_broken("timing algorithms", err);
}

/* Fills the list of configurations. Plans of the second list come into question only when one is looked for. */
static void list_configurations(struct search *s, bool fallback)
{
    cudnnBackendDescriptor_t graph = cudnn_graph_of(s->stream, s->bag, s->problem);

    s->count = 0;
    if (s->bag->status == CUDNN_STATUS_SUCCESS) {
        ask_heuristics(s, graph, CUDNN_HEUR_MODE_A);
        if (fallback)
            ask_heuristics(s, graph, CUDNN_HEUR_MODE_FALLBACK);
    }
    s->bag->status = CUDNN_STATUS_SUCCESS;
}

/* The plan that the cache names. It may be one that cannot be built any more, after a change of driver or libraries. */
static bool build_known(struct search *s, int choice, struct conv_plan *ret)
{
    list_configurations(s, false);
    if (choice >= s->count)
        list_configurations(s, true);
    return choice < s->count && build(s, choice, ret);
}

bool conv_plan_find(struct stream *stream, const struct conv_problem *problem, struct conv_plan *ret, struct err *err)
{
    struct search s = {.stream = stream, .problem = problem, .bag = cudnn_bag_new()};
    char text[160];
    int choice;
    bool known, remember = true, ok;

    *ret = (struct conv_plan){0};
    err->message[0] = '\0';
    if (!s.bag)
        return err_set(err, ERR_MEMORY, "no memory for a convolution");
    problem_text(stream, problem, text, sizeof text);
    known = cudnn_cache_find(stream->cache, text, &choice);
    ok = known && choice != CACHE_NO_PLAN && build_known(&s, choice, ret);
    if (!ok && (!known || choice != CACHE_NO_PLAN)) {
        list_configurations(&s, true);
        ok = choose(&s, text, &choice, &remember, err);
        if (ok && remember)
            cudnn_cache_add(stream->cache, text, choice);
        ok = ok && choice != CACHE_NO_PLAN && build(&s, choice, ret);
    }
    if (ok)
        ret->bag = s.bag;
    else
        cudnn_bag_free(s.bag);
    return ok;
}
