/* cudnn_cache.h - which plan was the fastest for which problem, in memory and in a file for each GPU and cuDNN version:
 * $RFUAV_CACHE, $XDG_CACHE_HOME/rfuav or ~/.cache/rfuav. A file that cannot be read or written is done without. A
 * deterministic stream has none: what it chooses must not depend on one. */
#ifndef RFUAV_ENGINE_CUDA_CUDNN_CACHE_H
#define RFUAV_ENGINE_CUDA_CUDNN_CACHE_H

#include <stdbool.h>

struct stream;
struct cudnn_cache;

enum { CACHE_NO_PLAN = -1 }; /* the choice for a problem that cuDNN has no engine for */

struct cudnn_cache *cudnn_cache_open(const struct stream *stream); /* NULL without memory: nothing is remembered */
void cudnn_cache_close(struct cudnn_cache *cache);

bool cudnn_cache_find(const struct cudnn_cache *cache, const char *problem, int *choice);
void cudnn_cache_add(struct cudnn_cache *cache, const char *problem, int choice);

#endif
