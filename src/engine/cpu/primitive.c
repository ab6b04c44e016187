/* primitive.c - oneDNN primitives with their arguments. */
#include "engine/cpu/primitive.h"

#include <string.h>

enum { SCRATCH_ALIGNMENT = 64 };

size_t primitive_scratchpad(dnnl_primitive_desc_t desc)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);

    return md ? dnnl_memory_desc_get_size(md) : 0;
}

static bool add_argument(struct stream *stream, int arg, const dnnl_memory_desc_t *md, struct primitive *primitive,
                         struct err *err)
{
    dnnl_exec_arg_t *entry = &primitive->args[primitive->arg_count];
    dnnl_status_t status = dnnl_memory_create(&entry->memory, md, stream->engine, DNNL_MEMORY_NONE);

    if (status != dnnl_success)
        return stream_fail(status, "memory", err);
    entry->arg = arg;
    primitive->arg_count++;
    return true;
}

bool primitive_create(struct stream *stream, dnnl_primitive_desc_t desc, const struct argument *args, int arg_count,
                      struct primitive *ret, struct err *err)
{
    struct primitive made = {0};
    dnnl_status_t status = dnnl_primitive_create(&made.primitive, desc);
    bool ok = true;

    if (status != dnnl_success)
        return stream_fail(status, "primitive", err);
    for (int i = 0; ok && i < arg_count; i++)
        ok = add_argument(stream, args[i].arg, args[i].md, &made, err);
    if (ok && primitive_scratchpad(desc) > 0)
        ok = add_argument(stream, DNNL_ARG_SCRATCHPAD, dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0),
                          &made, err);
    if (!ok) {
        primitive_release(&made);
        return false;
    }
    *ret = made;
    return true;
}

void primitive_release(struct primitive *primitive)
{
    for (int i = 0; i < primitive->arg_count; i++)
        dnnl_memory_destroy(primitive->args[i].memory);
    if (primitive->primitive)
        dnnl_primitive_destroy(primitive->primitive);
    *primitive = (struct primitive){0};
}

bool primitive_run(struct stream *stream, struct primitive *primitive, void *const *data, struct err *err)
{
    dnnl_status_t status = dnnl_success;

    for (int i = 0; status == dnnl_success && i < primitive->arg_count; i++)
        if (data[i] != primitive->data[i]) {
            status = dnnl_memory_set_data_handle(primitive->args[i].memory, data[i]);
            primitive->data[i] = data[i];
        }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive->primitive, stream->queue, primitive->arg_count, primitive->args);
    return status == dnnl_success || stream_fail(status, "execution", err);
}

bool attributes_create(const_dnnl_post_ops_t post_ops, dnnl_primitive_attr_t *ret, struct err *err)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && post_ops)
        status = dnnl_primitive_attr_set_post_ops(attr, post_ops);
    if (status != dnnl_success) {
        if (attr)
            dnnl_primitive_attr_destroy(attr);
        return stream_fail(status, "attributes", err);
    }
    *ret = attr;
    return true;
}

dnnl_status_t append_activation(dnnl_post_ops_t post_ops, enum activation activation)
{
    /* hard sigmoid is x / 6 + 1 / 2, cut off at 0 and 1 */
    static const struct {
        dnnl_alg_kind_t algorithm[2]; /* undef: none */
        float alpha[2], beta[2];
    } forms[ACTIVATION_COUNT] = {
        [ACTIVATION_RELU] = {{dnnl_eltwise_relu}, {0}, {0}},
        [ACTIVATION_HARDSWISH] = {{dnnl_eltwise_hardswish}, {0}, {0}},
        [ACTIVATION_HARDSIGMOID] = {{dnnl_eltwise_linear, dnnl_eltwise_clip}, {1.0f / 6, 0}, {0.5f, 1}},
        [ACTIVATION_GELU] = {{dnnl_eltwise_gelu_erf}, {0}, {0}},
    };

    dnnl_status_t status = dnnl_success;

    for (int i = 0; status == dnnl_success && i < 2 && forms[activation].algorithm[i] != dnnl_alg_kind_undef; i++)
        status = dnnl_post_ops_append_eltwise(post_ops, 1, forms[activation].algorithm[i], forms[activation].alpha[i],
                                              forms[activation].beta[i]);
    return status;
}

dnnl_primitive_desc_t primitive_choose(struct stream *stream, const_dnnl_op_desc_t desc,
                                       const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint,
                                       bool *is_reference)
{
    dnnl_primitive_desc_t first = NULL, chosen = NULL;
    dnnl_primitive_desc_iterator_t it = NULL;

    if (dnnl_primitive_desc_iterator_create(&it, desc, attr, stream->engine, hint) != dnnl_success)
        return NULL;
    do {
        dnnl_primitive_desc_t candidate = dnnl_primitive_desc_iterator_fetch(it);
        const char *name = "";

        dnnl_primitive_desc_query(candidate, dnnl_query_impl_info_str, 0, &name);
        if (!strstr(name, "ref"))
            chosen = candidate;
        else if (!first)
            first = candidate;
        else
            dnnl_primitive_desc_destroy(candidate);
    } while (!chosen && dnnl_primitive_desc_iterator_next(it) == dnnl_success);
    dnnl_primitive_desc_iterator_destroy(it);
    if (chosen && first)
        dnnl_primitive_desc_destroy(first);
    *is_reference = !chosen;
    return chosen ? chosen : first;
}

size_t scratch_book(struct op *op, size_t size)
{
    size_t offset = op->scratch_bytes;

    op->scratch_bytes += (size + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
    return offset;
}

void *scratch_at(const struct op *op, size_t offset)
{
    return op->scratch ? (char *)op->scratch + offset : NULL;
}

bool reorder_create(struct stream *stream, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                    struct primitive *ret, struct err *err)
{
    const struct argument args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&desc, from, stream->engine, to, stream->engine, NULL);
    bool ok;

    if (status != dnnl_success)
        return stream_fail(status, "reorder", err);
    ok = primitive_create(stream, desc, args, 2, ret, err);
    dnnl_primitive_desc_destroy(desc);
    return ok;
}

bool operand_make(struct stream *stream, struct op *op, bool is_input, const dnnl_memory_desc_t *found,
                  const dnnl_memory_desc_t *wanted, struct operand *ret, struct err *err)
{
    *ret = (struct operand){0};
    if (dnnl_memory_desc_equal(found, wanted))
        return true;
    ret->offset = scratch_book(op, dnnl_memory_desc_get_size(wanted));
    return reorder_create(stream, is_input ? found : wanted, is_input ? wanted : found, &ret->reorder, err);
}

void operand_release(struct operand *operand)
{
    primitive_release(&operand->reorder);
}

void *operand_load(struct stream *stream, const struct op *op, struct operand *operand, const void *data,
                   struct err *err)
{
    void *const args[PRIMITIVE_MAX_ARGS] = {(void *)(uintptr_t)data, scratch_at(op, operand->offset)};

    if (!operand->reorder.primitive)
        return args[0];
    return primitive_run(stream, &operand->reorder, args, err) ? args[1] : NULL;
}

void *operand_target(const struct op *op, const struct operand *operand, void *data)
{
    return operand->reorder.primitive ? scratch_at(op, operand->offset) : data;
}

bool operand_store(struct stream *stream, const struct op *op, struct operand *operand, void *data, struct err *err)
{
    void *const args[PRIMITIVE_MAX_ARGS] = {scratch_at(op, operand->offset), data};

    return !operand->reorder.primitive || primitive_run(stream, &operand->reorder, args, err);
}
