/* fuse.h - graph passes that merge ops, so that a value is written once instead of three times. Every backend honours
 * the merged forms; they change no result beyond rounding. Run before graph_backward(). */
#ifndef RFUAV_ENGINE_FUSE_H
#define RFUAV_ENGINE_FUSE_H

#include "engine/graph.h"

/* conv -> batch norm (inference)      becomes   conv with weights from a FOLD_BATCH_NORM in the prologue
 * conv | linear | batch norm | layer norm | dropout -> add   becomes   the same op with a residual, at the place of the
 * add conv | batch norm | add | linear -> activation   becomes   the same op with the activation, in training only
 * where the gradient can do without what goes into it (activation.h) image -> conv                      tells the image
 * the convolution's window (op.h) image -> patches                   becomes   patches of bytes each where nobody else
 * reads the value in between. Sets graph->prologue_count. */
void graph_fuse(struct graph *graph);

/* For nets that only infer, where memory is scarce; after graph_fuse(): keeps what the prologue makes and not what it
 * alone reads. Sets graph->fold_once. */
void graph_fold_once(struct graph *graph);

#endif
