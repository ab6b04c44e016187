/* vit_fit.c - weights of vision transformers from elsewhere: older names, other image sizes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/models/models.h"

const char *const vit_renamed[] = {".mlp.0.", ".mlp.linear_1.", ".mlp.3.", ".mlp.linear_2.", NULL};

/* The side of a square of so many tokens; 0: they are no square. */
static int64_t side_of(int64_t tokens)
{
    int64_t side = (int64_t)llround(sqrt((double)tokens));

    return side * side == tokens ? side : 0;
}

/* The four numbers around `at` that cubic convolution takes, and their weights: Keys 1981 with PyTorch's a = -0.75;
 * places outside the row are its ends. */
static void cubic(double at, int64_t count, int64_t places[4], double weights[4])
{
    const double a = -0.75, t = at - floor(at), far[] = {t + 1, 2 - t}, near[] = {t, 1 - t};

    for (int i = 0; i < 4; i++) {
        int64_t place = (int64_t)floor(at) - 1 + i;

        places[i] = place < 0 ? 0 : place >= count ? count - 1 : place;
    }
    for (int i = 0; i < 2; i++) {
        weights[i ? 3 : 0] = ((a * far[i] - 5 * a) * far[i] + 8 * a) * far[i] - 4 * a;
        weights[i ? 2 : 1] = ((a + 2) * near[i] - (a + 3)) * near[i] * near[i] + 1;
    }
}

/* Position embeddings of another number of patches, as torchvision's interpolate_embeddings: bicubic over the square of
 * patches, corners on corners; the class token's stays. */
bool vit_fit(const struct named_tensor *from, const struct tensor *to, float *ret)
{
    int64_t channels = to->shape[to->rank - 1], old, new;
    float *values;

    if (strcmp(to->name, "encoder.pos_embedding") != 0 || from->rank != 3 || from->shape[0] != 1 ||
        from->shape[2] != channels)
        return false;
    old = side_of(from->shape[1] - 1);
    new = side_of(to->shape[1] - 1);
    if (!old || !new || !ret)
        return old && new;
    values = malloc((size_t)named_tensor_elements(from) * sizeof *values);
    if (!values)
        return false;
    named_tensor_to_f32(from, values);
    memcpy(ret, values, (size_t)channels * sizeof *ret);
    for (int64_t i = 0; i < new *new; i++) {
        double scale = new > 1 ? (double)(old - 1) / (double)(new - 1) : 0, down[4], right[4];
        int64_t rows[4], columns[4], row = i / new, column = i % new;

        cubic((double)row * scale, old, rows, down);
        cubic((double)column * scale, old, columns, right);
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;

            for (int k = 0; k < 16; k++)
                sum += down[k / 4] * right[k % 4] *
                       (double)values[(1 + rows[k / 4] * old + columns[k % 4]) * channels + c];
            ret[(1 + i) * channels + c] = (float)sum;
        }
    }
    free(values);
    return true;
}
