/* graph.h - a static graph: a table of tensors and a table of ops in an order in which they can run.
 * Builders (nn.h) append to it, passes (fuse.h, autograd.h, optim.h) rewrite it, a plan (plan.h) gives it memory.
 * Shapes are static: another batch size is another graph over the same parameters.
 *
 * Building never has to be checked call by call: the first failure (no memory, an impossible shape) is kept in
 * graph->err, later calls do nothing harmful, and whoever asked for the graph looks at graph->failed once. */
#ifndef RFUAV_ENGINE_GRAPH_H
#define RFUAV_ENGINE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/state_dict.h"
#include "engine/op.h"

typedef int tensor_id; /* index in graph->tensors */
enum { NO_TENSOR = -1 };

/* What a tensor is for, which decides where it lives.
 *   PARAM BUFFER MOMENT COUNTER   persistent: kept between runs, shared by all plans of a net
 *   DERIVED                       computed by the prologue from persistent ones; kept until weights change
 *   INPUT                         written by the host before a run, always plain
 *   ACTIVATION GRADIENT STATE     live within one run, in the arena */
#define TENSOR_ROLES(X) X(PARAM) X(BUFFER) X(MOMENT) X(COUNTER) X(DERIVED) X(INPUT) X(ACTIVATION) X(GRADIENT) X(STATE)
enum tensor_role {
#define X(name) TENSOR_##name,
    TENSOR_ROLES(X)
#undef X
        TENSOR_ROLE_COUNT
};

/* Distribution of a parameter before training. Layers (nn.h) turn the first three, whose scale follows from the shape
 * of a weight, into one of the others. */
enum init_kind {
    INIT_TORCH,   /* uniform in ±1/sqrt(fan in): what PyTorch's own layers begin with */
    INIT_KAIMING, /* normal, variance 2 / fan out */
    INIT_XAVIER,  /* uniform, variance 2 / (fan in + fan out) */
    INIT_ZERO,
    INIT_ONE,
    INIT_CONSTANT,
    INIT_NORMAL, /* torchvision's truncated normals too: they are cut off at 50 standard deviations */
    INIT_UNIFORM,
    INIT_VALUES, /* tensor->values */
};
struct init {
    enum init_kind kind;
    double scale; /* CONSTANT: the value; NORMAL: standard deviation; UNIFORM: half width around 0 */
};

struct tensor {
    const char *name; /* PARAM, BUFFER: torchvision's state_dict key; else for messages, may be NULL */
    enum dtype dtype;
    enum tensor_role role;
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
    int slot;     /* running number within its role: persistent and DERIVED tensors of equal role and slot are the same
                     in all graphs of a net */
    tensor_id of; /* GRADIENT, MOMENT: of this tensor; else NO_TENSOR */
    struct init init;
    const void *values; /* init VALUES, of a PARAM or BUFFER: plain, with the graph's life */

    /* Filled by the plan. */
    const void *layout; /* the backend's; NULL: plain, dense row-major in `shape`. Interned by the backend for the life
                           of its stream: equal layouts are equal pointers */
    size_t bytes;       /* of that layout, padding included */
    size_t extra;       /* of these, at the end: what the backend keeps beside the values; gradients and moments have
                           none of it */
    bool passing;       /* PARAM, BUFFER: not kept, see graph->fold_once */
    bool keep;          /* still readable when the run is over */
    bool fixed;         /* the layout is decided; a kernel's prepare must take it as it is */
    void *data;         /* NULL until the plan is bound to memory */
};

struct op {
    enum op_type type;
    struct op_attrs attrs;
    int input_count, output_count;
    tensor_id *inputs, *outputs; /* NO_TENSOR: absent */

    /* Filled by the plan. */
    void *state;          /* the kernel's own, made by prepare (graph_alloc), see struct kernel */
    size_t scratch_bytes; /* booked by prepare; dead between ops */
    void *scratch;        /* 64-byte aligned; NULL until the plan is bound, and when nothing was booked */
};

struct graph {
    struct tensor *tensors; /* ids stay valid; pointers only until the next tensor is added */
    int tensor_count, tensor_capacity;
    struct op *ops;
    int op_count, op_capacity;
    int prologue_count; /* the first so many ops are the prologue: they depend on persistent tensors only */
    int slots[TENSOR_ROLE_COUNT];
    bool fold_once;  /* the prologue runs but once, while weights come: what it makes is kept outside the arena, what it
                        alone reads is there only when it reads it; graph_fold_once() */
    bool training;   /* layers behave as in training: batch statistics, dropout */
    bool no_dropout; /* but for dropout and stochastic depth, which do nothing */
    uint64_t seed;   /* of random ops */
    uint32_t random_count; /* random ops so far */
    tensor_id step;        /* COUNTER: optimizer steps done; NO_TENSOR: nobody has asked, graph_step() */
    tensor_id input, labels, logits, loss; /* NO_TENSOR where the graph has none */
    const tensor_id *gradients; /* by tensor, for the tensors there were when graph_backward() ran; or NULL */
    int gradient_count;
    struct arena *arena; /* names, lists, kernels' states */
    char scope[256];     /* "layer1.0.", see graph_push() */
    bool failed;
    struct err err;
};

struct graph *graph_new(bool training); /* NULL without memory */
struct graph *graph_free(struct graph *graph);

/* Keeps the first failure. */
void graph_fail(struct graph *graph, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Zeroed memory with the graph's life; NULL (and failed) without memory. */
void *graph_alloc(struct graph *graph, size_t size);

/* A new tensor. name: NULL or copied; PARAM and BUFFER get the scope in front. Sizes are bounded (2^40 bytes), so that
 * products of shapes cannot overflow. On failure returns 0: tensor 0 is a scalar that stands for what could not be
 * made, so that ids are always valid. */
tensor_id graph_tensor(struct graph *graph, enum tensor_role role, enum dtype dtype, int rank, const int64_t *shape,
                       const char *name);
tensor_id graph_like(struct graph *graph, enum tensor_role role, tensor_id other); /* dtype and shape of another */

/* The COUNTER of optimizer steps, made at the first call. */
tensor_id graph_step(struct graph *graph);

/* Appends an op. Lists are copied; trailing NO_TENSOR are cut. NULL when the graph has failed. */
struct op *graph_op(struct graph *graph, enum op_type type, const struct op_attrs *attrs, int input_count,
                    const tensor_id *inputs, int output_count, const tensor_id *outputs);

/* Scopes: graph_push(g, "layer1.%d", 0) makes later names begin with "layer1.0."; graph_pop() with what push gave. */
size_t graph_push(struct graph *graph, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void graph_pop(struct graph *graph, size_t scope);

bool tensor_is_persistent(enum tensor_role role);                         /* PARAM BUFFER MOMENT COUNTER */
bool graph_keeps(const struct graph *graph, const struct tensor *tensor); /* has it a place outside the arena? */
int64_t tensor_elements(const struct tensor *tensor);
size_t tensor_plain_bytes(const struct tensor *tensor);
bool tensor_same_shape(const struct tensor *a, const struct tensor *b);

/* Rows of a tensor seen as a matrix: all dimensions but the last; and the last. */
int64_t tensor_rows(const struct tensor *tensor);
int64_t tensor_channels(const struct tensor *tensor);

/* Tensor i of an op; NULL where it is absent. (A static analyser that looks inside takes every tensor for absent, also
 * those that an op always has.) */
#ifdef __clang_analyzer__
struct tensor *op_input(const struct graph *graph, const struct op *op, int i);
struct tensor *op_output(const struct graph *graph, const struct op *op, int i);
#else
static inline struct tensor *op_input(const struct graph *graph, const struct op *op, int i)
{
    return i < op->input_count && op->inputs[i] != NO_TENSOR ? &graph->tensors[op->inputs[i]] : NULL;
}

static inline struct tensor *op_output(const struct graph *graph, const struct op *op, int i)
{
    return i < op->output_count && op->outputs[i] != NO_TENSOR ? &graph->tensors[op->outputs[i]] : NULL;
}
#endif

#endif
