/* precision.c - see precision.h */
#include "engine/precision.h"

static bool may_be_half(const struct tensor *tensor)
{
    bool role = tensor->role == TENSOR_ACTIVATION || tensor->role == TENSOR_GRADIENT ||
                tensor->role == TENSOR_DERIVED || tensor->role == TENSOR_INPUT;

    return role && tensor->dtype == DTYPE_F32 && (tensor->rank >= 2 || tensor->role == TENSOR_DERIVED);
}

void graph_precision(struct graph *graph, enum dtype precision)
{
    if (graph->failed || precision == DTYPE_F32)
        return;
    for (int t = 0; t < graph->tensor_count; t++)
        if (may_be_half(&graph->tensors[t]))
            graph->tensors[t].dtype = precision;
    for (int i = 0; i < graph->op_count; i++)
        if (graph->ops[i].type == OP_LINEAR_BACKWARD_WEIGHT && op_output(graph, &graph->ops[i], 1))
            op_output(graph, &graph->ops[i], 1)->dtype = precision; /* from the same product as the weight's */
    if (graph->logits != NO_TENSOR)
        graph->tensors[graph->logits].dtype = DTYPE_F32;
    for (int i = 0; i < graph->op_count; i++)
        if (graph->ops[i].type == OP_POSITION_BIAS) {
            graph->tensors[graph->ops[i].outputs[0]].dtype = DTYPE_F32;
        } else if (graph->ops[i].type == OP_POSITION_BIAS_BACKWARD) {
            graph->tensors[graph->ops[i].inputs[POSITIONB_DTABLE]].dtype = DTYPE_F32;
        } else if (graph->ops[i].type == OP_CROSS_ENTROPY) {
            graph->tensors[graph->ops[i].inputs[0]].dtype = DTYPE_F32;
            graph->tensors[graph->ops[i].outputs[1]].dtype = DTYPE_F32; /* probabilities */
        }
}

void graph_halve_weights(struct graph *graph, enum dtype precision)
{
    if (graph->failed || precision == DTYPE_F32)
        return;
    for (int i = 0; i < graph->op_count; i++) {
        struct op *op = &graph->ops[i];
        struct tensor *weight = op->type == OP_LINEAR ? op_input(graph, op, LINEAR_WEIGHT) : NULL;

        if (weight && weight->role == TENSOR_PARAM && op_input(graph, op, LINEAR_X)->dtype == precision)
            weight->dtype = precision;
    }
}
