/* admit.h - what the daemon asks about a request before it becomes a task: is it one that can be carried out, and how
 * much memory will it take. Nothing here is slow or touches a device. The rows of task_kinds[] point here. */
#ifndef RFUAV_TASK_ADMIT_H
#define RFUAV_TASK_ADMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "data/loader.h"
#include "engine/net.h"
#include "task/requests.h"

/* The contract's checks in its order (ERR_REQUEST with its texts), then ours. Paths are made absolute, the default
 * output folders filled in. `request` is a struct train_request or infer_request. */
bool train_check(void *request, struct arena *arena, struct err *err);
bool infer_check(void *request, struct arena *arena, struct err *err);

/* Bytes on a device of `backend` ("cpu" or "cuda"), see task_kind.memory. */
uint64_t train_memory(const void *request, const char *backend, uint64_t available, char *advice, size_t advice_size);
uint64_t infer_memory(const void *request, const char *backend, uint64_t available, char *advice, size_t advice_size);

/* Bytes that the service reserves for a task with this net, without a CPU's caches of pictures; 0: it cannot be built.
 */
uint64_t net_reservation(const struct net_config *config);

/* What a request's precision means on a backend; NULL is fp32. */
enum dtype precision_on(const char *precision, const char *backend);

/* Is it one of PRECISIONS, or NULL? */
bool precision_check(const char *precision, struct err *err);

/* The net that a training request describes; seed, device and threads are left at 0. */
struct net_config train_net_config(const struct train_request *request, const char *backend);

/* Images of one inference step when the request leaves it open, and the batches that wait decoded ahead of the net. */
enum { INFER_BATCH = 16, BATCHES_AHEAD = 4 };

/* Host bytes that decoding ahead takes: batches under way, and the pictures that the threads are at. */
uint64_t decode_memory(int64_t batch_size, int64_t image_size);

/* Host bytes that a training takes beside net, weights that are saved and loaders: kernels generated for the
 * validation, drawing the confusion matrix with its fonts, stacks of threads; measured. */
enum { TRAIN_BESIDE = 28 << 20 };

/* "{save_path}" or "{save_path}/{name}", in the arena; NULL without memory. */
char *output_folder(struct arena *arena, const char *save_path, const char *name);

#endif
