/* net.h - a classifier on a device: the one door through which tasks use the engine.
 * A net is a model's static graph, planned and prepared for one backend. It reads no file: weights come and go as a
 * state_dict with torchvision's names. One thread uses a net at a time. */
#ifndef RFUAV_ENGINE_NET_H
#define RFUAV_ENGINE_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/state_dict.h"

enum net_mode { NET_INFER, NET_TRAIN };

struct net_config {
    const char *model;                       /* "resnet18"; see net_models() */
    int num_classes, image_size, batch_size; /* batch_size: the most images of one call */
    enum net_mode mode;                      /* a training net can evaluate too */
    enum dtype precision;                    /* DTYPE_F32; cuda: DTYPE_BF16 too */
    const char *backend;                     /* "ref", "cpu", "cuda" */
    const char *device;                      /* cuda: the GPU's UUID; else NULL */
    int threads;                             /* CPU threads; 0: all cores */
    uint64_t seed;                           /* initial weights, dropout */
    bool deterministic;                      /* the bits of a training do not depend on which algorithms a timing found
                                                fastest; they never depend on chance while a step runs */
    bool load_follows;                       /* net_load() comes next: only the last layer's weights are drawn */
    double learning_rate;                    /* Adam, betas 0.9 0.999, eps 1e-8, no weight decay */
    bool keep_inputs;                        /* for net_repeat() */
    bool torchvision_head;                   /* last layers as torchvision has them: net_has_torchvision_head() */
    bool no_dropout;                         /* dropout and stochastic depth do nothing: for comparisons */
};

/* What a run takes, in bytes, known before it starts. */
struct net_memory {
    uint64_t weights, gradients, optimizer, activations, workspace, inputs;
    uint64_t libraries; /* code and state of the process and its libraries */
    uint64_t total;
};

/* Sums since the last net_stats(). loss_sum adds each batch's mean loss. */
struct net_stats {
    double loss_sum;
    int64_t batches, correct, images;
};

struct net;

/* The supported models' names, NULL-terminated, in the order of the API; and what torchvision calls the model's class
 * ("ResNet"). NULL for an unknown model. */
const char *const *net_models(void);
const char *net_class_name(const char *model);

/* Is the configuration one that can be built (model, sizes, classes, backend)? The message says what can. */
bool net_check(const struct net_config *config, struct err *err);

/* How large a network is. parameters: trainable numbers; flops: operations of one image's forward pass, a multiply and
 * add counted as two (torchvision's tables count them as one). Of the configuration only model, classes and image size
 * matter. */
struct net_info {
    int64_t parameters, flops;
};
bool net_describe(const struct net_config *config, struct net_info *ret, struct err *err);

/* The memory that net_open() with this configuration and its steps will take. Allocates nothing of it and touches no
 * device, so that the daemon can call it for any backend. */
bool net_plan(const struct net_config *config, struct net_memory *ret, struct err *err);

/* The largest batch size whose plan fits in `bytes`, with `each` bytes more for every image; 0 when not even one does.
 */
int net_largest_batch(const struct net_config *config, uint64_t bytes, uint64_t each);

/* Builds, plans and allocates; weights are initialised as torchvision does, from config->seed. */
bool net_open(const struct net_config *config, struct net **ret, struct err *err);
struct net *net_free(struct net *net);

/* Are these weights of the model with torchvision's own last layers, where the service gives it others (MobileNet v3)?
 * Then they load into a net with config.torchvision_head. */
bool net_has_torchvision_head(const char *model, const struct state_dict *dict);

/* Takes weights. Strict: a missing, extra or misshapen name is an error that names it. With skip_head a last layer of
 * another size is left as it is (fine-tuning from ImageNet) and *skipped tells so. Optimizer state is reset. */
bool net_load(struct net *net, const struct state_dict *dict, bool skip_head, bool *skipped, struct err *err);

/* All parameters and buffers under torchvision's names and shapes, in torchvision's order. Not of an
 * inference net on CUDA: what that keeps is rounded, and batch norms are gone. */
bool net_save(struct net *net, struct state_dict **ret, struct err *err);

/* One optimizer step on images (n, image_size, image_size, 3) RGB bytes and labels (n), n ≤ batch_size. The net's
 * loss and accuracy sums grow; nothing waits for the device. */
bool net_train(struct net *net, const uint8_t *images, const int32_t *labels, int n, struct err *err);

/* Logits (n, num_classes) in evaluation mode. */
bool net_logits(struct net *net, const uint8_t *images, int n, float *logits, struct err *err);

/* Where the images of the next net_train() or net_logits() may be written, (batch_size, image_size, image_size, 3), by
 * any thread; handed over, they need no further copy on the host. Waits until those of an earlier call have left it.
 * Good for one call. */
bool net_input_buffer(struct net *net, uint8_t **ret, struct err *err);

/* Reads and clears the sums of net_train(). Waits for the device. */
bool net_stats(struct net *net, struct net_stats *ret, struct err *err);

/* For benchmarks, of a net with keep_inputs: does the last net_train() or net_logits() with n images `times` times more
 * on the inputs that are on the device already, and waits for the device. */
bool net_repeat(struct net *net, int n, bool training, int times, struct err *err);

/* What one op of a step costs when it runs alone; output: its shape, "8x56x56x64". */
struct net_op_time {
    const char *op;
    char output[64];
    double us;
};

/* For benchmarks: times each op of the step with n images, and calls fn for it. The net computes nonsense afterwards.
 */
bool net_time_ops(struct net *net, int n, bool training, void (*fn)(void *arg, const struct net_op_time *time),
                  void *arg, struct err *err);

/* Bytes in use on the net's device by all processes; false where that is not known. */
bool net_device_memory(struct net *net, uint64_t *used, uint64_t *total);

/* What was planned, and what this net holds now. */
const struct net_memory *net_memory(const struct net *net);

/* What a backend found on this machine: "CUDA 13.0, cuDNN 9.19.0, cuBLASLt 13.1.0", or why it cannot be used. Opens its
 * libraries, but no device. */
const char *net_backend_version(const char *backend);

/* Versions of engine and libraries in one line: "rfuav 3.0.0, oneDNN 2.6.3". */
const char *net_version(void);

#endif
