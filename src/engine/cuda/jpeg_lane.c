/* jpeg_lane.c - see jpeg_lane.h. All device memory but nvJPEG's own is one block of fixed size, of which a batch's
 * pictures take pieces; a batch ends where it is full. */
#include "engine/cuda/jpeg_lane.h"

#include <string.h>

enum { WORK_BYTES = 48 << 20, TABLE_BYTES = 2 << 20, FILE_BYTES = 8 << 20, ALIGNMENT = 256 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t result_bytes(int image_size)
{
    return 3 * (size_t)image_size * (size_t)image_size;
}

static size_t table_bytes(const struct resample *r)
{
    return aligned((size_t)r->out_size * (2 + (size_t)r->taps) * sizeof(int32_t));
}

/* Of a colour plane. */
static size_t colour_width(const struct jpeg_picture *p)
{
    return (size_t)(p->subsampled ? (p->width + 1) / 2 : p->width);
}

static size_t colour_height(const struct jpeg_picture *p)
{
    return (size_t)(p->subsampled ? (p->height + 1) / 2 : p->height);
}

/* What a picture takes of `work`, without its tables. */
static size_t work_bytes(const struct jpeg_picture *p, int image_size)
{
    size_t width = (size_t)p->width, height = (size_t)p->height;

    return aligned(width * height) + 2 * aligned(colour_width(p) * colour_height(p)) +
           aligned(3 * height * (size_t)image_size) + aligned(result_bytes(image_size));
}

bool jpeg_load_add(struct jpeg_load *load, const struct jpeg_picture *picture, int image_size)
{
    size_t work = load->work + work_bytes(picture, image_size);
    size_t tables = load->tables + table_bytes(picture->horizontal) + table_bytes(picture->vertical);

    if (load->count == JPEG_BATCH || picture->width > JPEG_MOST_COLUMNS || tables > TABLE_BYTES ||
        TABLE_BYTES + work > WORK_BYTES)
        return false;
    load->work = work;
    load->tables = tables;
    load->pictures[load->count++] = picture;
    return true;
}

/* --- a batch -------------------------------------------------------------------------------------------------------*/

struct batch {
    struct jpeg_launch launch;
    size_t work_bytes, table_bytes, file_bytes; /* taken of `work`, `tables` and `files` */
    struct nvjpeg_image images[JPEG_BATCH];
    const unsigned char *data[JPEG_BATCH];
    size_t sizes[JPEG_BATCH];
};

static void *take(const struct jpeg_lane *lane, struct batch *batch, size_t bytes)
{
    void *memory = lane->work + TABLE_BYTES + batch->work_bytes;

    batch->work_bytes += aligned(bytes);
    return memory;
}

static struct device_resample put_table(const struct jpeg_lane *lane, struct batch *batch, const struct resample *r)
{
    size_t n = (size_t)r->out_size, weights = n * (size_t)r->taps;
    int32_t *host = (int32_t *)(lane->tables + batch->table_bytes);
    int32_t *device = (int32_t *)(lane->work + batch->table_bytes);

    memcpy(host, r->first, n * sizeof *host);
    memcpy(host + n, r->count, n * sizeof *host);
    memcpy(host + 2 * n, r->weight, weights * sizeof *host);
    batch->table_bytes += table_bytes(r);
    return (struct device_resample){device, device + n, device + 2 * n, r->taps};
}

/* The file in pinned memory, or where it is, if there is no more of that. */
static const unsigned char *put_file(const struct jpeg_lane *lane, struct batch *batch, const struct jpeg_picture *p)
{
    char *pinned = lane->files + batch->file_bytes;

    if (p->size > FILE_BYTES - batch->file_bytes)
        return p->data;
    memcpy(pinned, p->data, p->size);
    batch->file_bytes += p->size;
    return (unsigned char *)pinned;
}

/* Gives the picture its memory. */
static void add_picture(const struct jpeg_lane *lane, struct batch *batch, const struct jpeg_picture *p,
                        uint8_t *result)
{
    int i = batch->launch.count++;
    struct planes *planes = &batch->launch.pictures[i];

    *planes = (struct planes){.width = p->width,
                              .height = p->height,
                              .colour_width = (int)colour_width(p),
                              .colour_height = (int)colour_height(p),
                              .horizontal = put_table(lane, batch, p->horizontal),
                              .vertical = put_table(lane, batch, p->vertical),
                              .between = take(lane, batch, 3 * (size_t)p->height * (size_t)lane->image_size),
                              .out = result};
    for (int c = 0; c < 3; c++) {
        size_t width = c ? colour_width(p) : (size_t)p->width, height = c ? colour_height(p) : (size_t)p->height;

        batch->images[i].channel[c] = take(lane, batch, width * height);
        batch->images[i].pitch[c] = width;
        planes->plane[c] = batch->images[i].channel[c];
    }
    batch->data[i] = put_file(lane, batch, p);
    batch->sizes[i] = p->size;
    batch->launch.most_rows = p->height > batch->launch.most_rows ? p->height : batch->launch.most_rows;
    batch->launch.most_columns = p->width > batch->launch.most_columns ? p->width : batch->launch.most_columns;
}

static bool decode_planes(struct jpeg_lane *lane, struct batch *batch)
{
    int count = batch->launch.count;

    if (lane->initialized != count &&
        nvjpeg.DecodeBatchedInitialize(lane->handle, lane->state, count, 1, NVJPEG_OUTPUT_YUV) != 0) {
        lane->initialized = 0;
        return false;
    }
    lane->initialized = count;
    return nvjpeg.DecodeBatched(lane->handle, lane->state, batch->data, batch->sizes, batch->images, lane->queue) == 0;
}

bool jpeg_lane_run(struct jpeg_lane *lane, const struct jpeg_load *load)
{
    struct batch batch = {.launch = {.image_size = lane->image_size}};
    size_t bytes = result_bytes(lane->image_size);
    uint8_t *results; /* of all in one piece, which is taken first */

    results = take(lane, &batch, (size_t)load->count * bytes);
    for (int i = 0; i < load->count; i++)
        add_picture(lane, &batch, load->pictures[i], results + (size_t)i * bytes);
    if (cudaMemcpyAsync(lane->work, lane->tables, batch.table_bytes, cudaMemcpyHostToDevice, lane->queue) !=
            cudaSuccess ||
        !decode_planes(lane, &batch) || jpeg_resize(lane->queue, &batch.launch) != cudaSuccess ||
        cudaMemcpyAsync(lane->results, results, (size_t)load->count * bytes, cudaMemcpyDeviceToHost, lane->queue) !=
            cudaSuccess ||
        cudaEventRecord(lane->done, lane->queue) != cudaSuccess || cudaEventSynchronize(lane->done) != cudaSuccess) {
        cudaGetLastError(); /* clears it, where that is possible */
        return false;
    }
    return true;
}

/* --- opening -------------------------------------------------------------------------------------------------------*/

bool jpeg_lane_open(struct jpeg_lane *lane, nvjpegHandle_t handle, int image_size)
{
    size_t results = JPEG_BATCH * result_bytes(image_size);
    int low, high;

    *lane = (struct jpeg_lane){.image_size = image_size, .handle = handle};
    return nvjpeg.JpegStateCreate(handle, &lane->state) == 0 &&
           cudaDeviceGetStreamPriorityRange(&low, &high) == cudaSuccess && /* the net's own work goes first */
           cudaStreamCreateWithPriority(&lane->queue, cudaStreamNonBlocking, low) == cudaSuccess &&
           cudaEventCreateWithFlags(&lane->done, cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess &&
           cudaMalloc((void **)&lane->work, WORK_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&lane->tables, TABLE_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&lane->files, FILE_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&lane->results, results < WORK_BYTES ? results : WORK_BYTES) == cudaSuccess;
}

void jpeg_lane_close(struct jpeg_lane *lane)
{
    if (lane->state)
        nvjpeg.JpegStateDestroy(lane->state);
    if (lane->done)
        cudaEventDestroy(lane->done);
    if (lane->queue)
        cudaStreamDestroy(lane->queue);
    cudaFree(lane->work);
    cudaFreeHost(lane->tables);
    cudaFreeHost(lane->files);
    cudaFreeHost(lane->results);
}
