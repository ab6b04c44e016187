/* cudnn.c - see cudnn.h: descriptors of a convolution and what is fused to it, plans for them, running one. The choice
 * among plans is in cudnn_search.c. */
#include <stdlib.h>

#include "engine/cuda/cudnn_plan.h"

/* Unique ids of operands; larger ones are values that exist only inside. */
enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_RESIDUAL, UID_INSIDE };

enum { OPERANDS = 5, ALIGNMENT = 16 };

typedef cudnnBackendDescriptor_t descriptor;

struct cudnn_bag *cudnn_bag_new(void)
{
    return calloc(1, sizeof(struct cudnn_bag));
}

struct cudnn_bag *cudnn_bag_free(struct cudnn_bag *bag)
{
    for (int i = bag ? bag->count : 0; i > 0; i--)
        libs.cudnnBackendDestroyDescriptor(bag->items[i - 1]);
    free(bag);
    return NULL;
}

descriptor cudnn_make(struct cudnn_bag *bag, cudnnBackendDescriptorType_t type)
{
    descriptor d = NULL;

    if (bag->status == CUDNN_STATUS_SUCCESS && bag->count == CUDNN_BAG_SIZE)
        bag->status = CUDNN_STATUS_INTERNAL_ERROR;
    if (bag->status == CUDNN_STATUS_SUCCESS)
        bag->status = libs.cudnnBackendCreateDescriptor(type, &d);
    if (bag->status == CUDNN_STATUS_SUCCESS)
        bag->items[bag->count++] = d;
    return d;
}

void cudnn_set(struct cudnn_bag *bag, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
               int64_t count, const void *values)
{
    if (bag->status == CUDNN_STATUS_SUCCESS)
        bag->status = libs.cudnnBackendSetAttribute(d, name, type, count, values);
}

void cudnn_finalize(struct cudnn_bag *bag, descriptor d)
{
    if (bag->status == CUDNN_STATUS_SUCCESS)
        bag->status = libs.cudnnBackendFinalize(d);
}

static void set_descriptor(struct cudnn_bag *bag, descriptor d, cudnnBackendAttributeName_t name, descriptor value)
{
    cudnn_set(bag, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static cudnnDataType_t type_of(enum number number)
{
    return number == NUMBER_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* A tensor of cuDNN's dims (n, c, h, w), channels last in memory. */
static descriptor make_tensor(struct cudnn_bag *bag, int64_t uid, cudnnDataType_t type, int64_t n, int64_t c, int64_t h,
                              int64_t w)
{
    descriptor d = cudnn_make(bag, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t dims[] = {n, c, h, w}, strides[] = {h * w * c, 1, w * c, c}, alignment = ALIGNMENT;
    bool inside = uid >= UID_INSIDE;

    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    cudnn_set(bag, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inside);
    cudnn_finalize(bag, d);
    return d;
}

static descriptor make_convolution(struct cudnn_bag *bag, const struct direct_launch *s)
{
    descriptor d = cudnn_make(bag, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t axes = 2, padding[] = {s->padding[0], s->padding[1]}, stride[] = {s->stride[0], s->stride[1]};
    int64_t dilation[] = {1, 1};

    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    cudnn_set(bag, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    cudnn_finalize(bag, d);
    return d;
}

/* One row a pass: the operation and the names of its attributes. */
static const struct pass {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
} passes[] = {
    [CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [CONV_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [CONV_BACKWARD_WEIGHT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static descriptor make_operation(struct cudnn_bag *bag, enum conv_pass pass, descriptor convolution, descriptor x,
                                 descriptor w, descriptor y)
{
    const struct pass *p = &passes[pass];
    descriptor d = cudnn_make(bag, p->operation);
    float alpha = 1, beta = 0;

    set_descriptor(bag, d, p->convolution, convolution);
    set_descriptor(bag, d, p->x, x);
    set_descriptor(bag, d, p->w, w);
    set_descriptor(bag, d, p->y, y);
    cudnn_set(bag, d, p->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    cudnn_set(bag, d, p->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    cudnn_finalize(bag, d);
    return d;
}

/* y = a + b, or y = relu(a) when b is NULL. */
static descriptor make_pointwise(struct cudnn_bag *bag, descriptor a, descriptor b, descriptor y)
{
    descriptor what = cudnn_make(bag, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), d;
    cudnnPointwiseMode_t mode = b ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_RELU_FWD;
    cudnnDataType_t precision = CUDNN_DATA_FLOAT;

    cudnn_set(bag, what, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    cudnn_set(bag, what, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_finalize(bag, what);
    d = cudnn_make(bag, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(bag, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what);
    set_descriptor(bag, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a);
    if (b)
        set_descriptor(bag, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_descriptor(bag, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    cudnn_finalize(bag, d);
    return d;
}

descriptor cudnn_graph_of(struct stream *stream, struct cudnn_bag *bag, const struct conv_problem *p)
{
    const struct direct_launch *s = &p->shape;
    enum { MOST = 4 };
    cudnnDataType_t type = type_of(s->number);
    cudnnDataType_t weight_type = p->pass == CONV_BACKWARD_WEIGHT ? type_of(s->weight_number) : type;
    descriptor x = make_tensor(bag, UID_X, type, s->n, s->c, s->h, s->w);
    descriptor w = make_tensor(bag, UID_W, weight_type, s->o, s->c / s->groups, s->kernel[0], s->kernel[1]);
    descriptor others[3] = {
        p->residual ? make_tensor(bag, UID_RESIDUAL, type, s->n, s->o, s->oh, s->ow) : NULL,
        p->bias ? make_tensor(bag, UID_BIAS, type_of(p->bias_number), 1, s->o, 1, 1) : NULL,
    };
    int steps = p->residual + p->bias + p->relu, count = 0;
    int64_t uid = UID_INSIDE, operation_count;
    descriptor operations[MOST], graph, y;

    y = make_tensor(bag, steps ? uid++ : UID_Y, steps ? CUDNN_DATA_FLOAT : type, s->n, s->o, s->oh, s->ow);
    operations[count++] = make_operation(bag, p->pass, make_convolution(bag, s), x, w, y);
    for (int i = 0; i < 3; i++) {
        descriptor next;

        if (!(i == 0 ? p->residual : i == 1 ? p->bias : p->relu))
            continue;
        steps--;
        next = make_tensor(bag, steps ? uid++ : UID_Y, steps ? CUDNN_DATA_FLOAT : type, s->n, s->o, s->oh, s->ow);
        operations[count++] = make_pointwise(bag, y, others[i], next);
        y = next;
    }
    graph = cudnn_make(bag, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    operation_count = count;
    cudnn_set(bag, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &stream->cudnn);
    cudnn_set(bag, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operation_count, operations);
    cudnn_finalize(bag, graph);
    return graph;
}

bool conv_plan_run(struct stream *stream, const struct conv_plan *plan, const struct conv_operands *operands,
                   void *workspace, struct err *err)
{
    const void *all[OPERANDS] = {operands->x, operands->w, operands->y, operands->bias, operands->residual};
    const void *pointers[OPERANDS];
    int64_t uids[OPERANDS], count = 0;
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t status = libs.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);

    for (int i = 0; i < OPERANDS; i++)
        if (all[i]) {
            uids[count] = UID_X + i;
            pointers[count++] = all[i];
        }
    if (status == CUDNN_STATUS_SUCCESS)
        status = libs.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
    if (status == CUDNN_STATUS_SUCCESS)
        status = libs.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
                                               pointers);
    if (status == CUDNN_STATUS_SUCCESS)
        status =
            libs.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (status == CUDNN_STATUS_SUCCESS)
        status = libs.cudnnBackendFinalize(pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = libs.cudnnBackendExecute(stream->cudnn, plan->plan, pack);
    if (pack)
        libs.cudnnBackendDestroyDescriptor(pack);
    return status == CUDNN_STATUS_SUCCESS || cudnn_fail(status, "convolution", err);
}

void conv_plan_release(struct conv_plan *plan)
{
    cudnn_bag_free(plan->bag);
    *plan = (struct conv_plan){0};
}
