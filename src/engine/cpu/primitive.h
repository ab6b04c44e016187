/* primitive.h - oneDNN primitives with their arguments: made in prepare, executed in run.
 *
 * A primitive's memory objects are made once; run gives it the addresses of the day, in the order of the arguments. */
#ifndef RFUAV_ENGINE_CPU_PRIMITIVE_H
#define RFUAV_ENGINE_CPU_PRIMITIVE_H

#include "engine/cpu/stream.h"

enum { PRIMITIVE_MAX_ARGS = 8 };

struct primitive {
    dnnl_primitive_t primitive; /* NULL: none */
    int arg_count;
    dnnl_exec_arg_t args[PRIMITIVE_MAX_ARGS];
    void *data[PRIMITIVE_MAX_ARGS]; /* that the memory objects have now */
};

/* An argument: DNNL_ARG_..., and how its memory lies. */
struct argument {
    int arg;
    const dnnl_memory_desc_t *md;
};

/* Makes the primitive of `desc` and its memory objects. If it needs a scratchpad, the last argument is that. */
bool primitive_create(struct stream *stream, dnnl_primitive_desc_t desc, const struct argument *args, int arg_count,
                      struct primitive *ret, struct err *err);
void primitive_release(struct primitive *primitive);

/* Bytes of scratchpad that `desc` needs. */
size_t primitive_scratchpad(dnnl_primitive_desc_t desc);

/* Executes on data[0..arg_count), an array of PRIMITIVE_MAX_ARGS. */
bool primitive_run(struct stream *stream, struct primitive *primitive, void *const *data, struct err *err);

/* Attributes with the scratchpad provided by the caller, which is how all primitives here are made; and optionally
 * with post-ops. The caller destroys them. */
bool attributes_create(const_dnnl_post_ops_t post_ops, dnnl_primitive_attr_t *ret, struct err *err);

/* Appends an activation, if it is one, to post-ops. */
dnnl_status_t append_activation(dnnl_post_ops_t post_ops, enum activation activation);

/* The first implementation of an operation that is not oneDNN's reference code, the first of all if there is no
 * other. hint: the forward's, or NULL. NULL: none at all. */
dnnl_primitive_desc_t primitive_choose(struct stream *stream, const_dnnl_op_desc_t desc,
                                       const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint,
                                       bool *is_reference);

/* A copy from one layout to another. Arguments: from, to. */
bool reorder_create(struct stream *stream, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                    struct primitive *ret, struct err *err);

/* Books `size` bytes of the op's scratch and returns their offset, a multiple of 64. */
size_t scratch_book(struct op *op, size_t size);
void *scratch_at(const struct op *op, size_t offset);

/* An input or output of an op that a primitive wants in a certain layout: where it lies in that layout already it is
 * used as it is, else it is reordered from or to a booked piece of scratch. */
struct operand {
    struct primitive reorder;
    size_t offset;
};

bool operand_make(struct stream *stream, struct op *op, bool is_input, const dnnl_memory_desc_t *found,
                  const dnnl_memory_desc_t *wanted, struct operand *ret, struct err *err);
void operand_release(struct operand *operand);

/* Input: where to read, reordered now if necessary; NULL with *err set. */
void *operand_load(struct stream *stream, const struct op *op, struct operand *operand, const void *data,
                   struct err *err);
/* Output: where to write; and, after that, the way to the tensor. */
void *operand_target(const struct op *op, const struct operand *operand, void *data);
bool operand_store(struct stream *stream, const struct op *op, struct operand *operand, void *data, struct err *err);

#endif
