/* net_internal.h - the inside of a net, for its own files and for tests that look at gradients. */
#ifndef RFUAV_ENGINE_NET_INTERNAL_H
#define RFUAV_ENGINE_NET_INTERNAL_H

#include "engine/models/models.h"
#include "engine/net.h"
#include "engine/plan.h"

enum { NET_PLANS = 6 }; /* plans kept: the full batch in training and evaluation, and smaller ones by last use */

struct net_plan_slot {
    struct plan *plan; /* NULL: free */
    int n;             /* images */
    bool training;
    uint64_t used; /* net->clock at the last use */
};

struct net {
    struct net_config config; /* strings are not kept: model, backend and device are NULL */
    const struct model *model;
    const struct backend *backend;
    struct stream *stream;
    struct params *params;
    struct net_plan_slot plans[NET_PLANS];
    uint64_t clock;
    void *arena;
    size_t arena_bytes;
    uint8_t *input; /* net_input_buffer() where the backend has none */
    struct net_memory memory;
    bool has_weights; /* drawn or loaded; drawing waits until they are needed, since most nets get theirs by net_load()
                       */
    bool keep_gradients; /* see net_keep_gradients() */
};

/* net_open() of a configuration that can be built, on a backend that need not be in the list. */
bool net_open_on(const struct net_config *config, const struct backend *backend, struct net **ret, struct err *err);

/* The graph for n images, as the backend likes it. Training: with loss, gradients and Adam; else as for inference,
 * batch norm folded. NULL without memory; a failed graph carries its error. */
struct graph *net_graph(const struct model *model, const struct net_config *config, const struct backend *backend,
                        int n, bool training);

/* The plan for n images, made when there is none, its arena bound. */
bool net_plan_for(struct net *net, int n, bool training, struct plan **ret, struct err *err);

/* Draws the initial weights from config->seed unless there are weights. */
bool net_need_weights(struct net *net, struct err *err);

/* Sums a plan's memory into the categories of net.h. */
struct net_memory net_memory_of(const struct plan_memory *main, const struct plan_memory *evaluation,
                                const struct backend *backend);

/* For tests: parameters' gradients stay readable after a step. To be called before the first net_train(); makes the
 * training plan anew. */
bool net_keep_gradients(struct net *net, struct err *err);

/* The gradient that the last net_train(), of n images, computed for a parameter, plain in its torchvision shape. */
bool net_gradient(struct net *net, int n, const char *name, float *ret, struct err *err);

#endif
