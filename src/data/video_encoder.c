/* video_encoder.c - see video_encoder.h; built as a shared object of its own. The only user of FFmpeg's libraries. */
#include "data/video_encoder.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <stdio.h>
#include <stdlib.h>

struct video_encoder {
    AVFormatContext *file;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame;
    AVPacket *packet;
    struct SwsContext *colors;
};

/* In order of preference. x264 looks only a few frames ahead and back: the pictures of a recording change slowly, and
 * each frame it holds takes a dozen megabytes. A quality of 20 keeps the annotation's edges clean. */
static const struct {
    const char *name, *options;
} encoders[] = {
    {"libx264",
     "preset=veryfast:crf=20:x264-params=rc-lookahead=4\\:sync-lookahead=0\\:bframes=0\\:ref=1\\:sliced-threads=1"},
    {"mpeg4", "qmin=2:qmax=6"},
};

static bool failed(const char *what, int code, char *why, size_t size)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";

    av_strerror(code, text, sizeof text);
    snprintf(why, size, "%s: %s", what, text);
    return false;
}

static void encoder_free(struct video_encoder *encoder)
{
    if (!encoder)
        return;
    sws_freeContext(encoder->colors);
    av_packet_free(&encoder->packet);
    av_frame_free(&encoder->frame);
    avcodec_free_context(&encoder->codec);
    if (encoder->file)
        avio_closep(&encoder->file->pb);
    avformat_free_context(encoder->file);
    free(encoder);
}

/* Opens encoders[which]; false when the library lacks it or it refuses. */
static bool open_codec(struct video_encoder *encoder, size_t which, int width, int height, int rate, int threads)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(encoders[which].name);
    AVDictionary *options = NULL;
    AVCodecContext *context = codec ? avcodec_alloc_context3(codec) : NULL;
    bool ok = false;

    if (!context)
        return false;
    context->width = width;
    context->height = height;
    context->pix_fmt = AV_PIX_FMT_YUV420P;
    context->time_base = (AVRational){1, rate};
    context->framerate = (AVRational){rate, 1};
    context->gop_size = 2 * rate;
    context->thread_count = threads;
    context->color_range = AVCOL_RANGE_MPEG;
    context->colorspace = AVCOL_SPC_BT709;
    context->color_primaries = AVCOL_PRI_BT709;
    context->color_trc = AVCOL_TRC_BT709;
    if (encoder->file->oformat->flags & AVFMT_GLOBALHEADER)
        context->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    ok = av_dict_parse_string(&options, encoders[which].options, "=", ":", 0) >= 0 &&
         avcodec_open2(context, codec, &options) >= 0;
    av_dict_free(&options);
    if (ok)
        encoder->codec = context;
    else
        avcodec_free_context(&context);
    return ok;
}

static bool open_file(struct video_encoder *encoder, const char *path, char *why, size_t size)
{
    AVDictionary *options = NULL;
    char url[4096 + 8];
    int code;

    snprintf(url, sizeof url, "file:%s", path); /* a colon in a path names no protocol */
    if ((code = avio_open(&encoder->file->pb, url, AVIO_FLAG_WRITE)) < 0)
        return failed("cannot be created", code, why, size);
    encoder->stream->time_base = encoder->codec->time_base;
    encoder->stream->avg_frame_rate = encoder->codec->framerate;
    code = avcodec_parameters_from_context(encoder->stream->codecpar, encoder->codec);
    av_dict_set(&options, "movflags", "+faststart", 0); /* so that a browser shows it while it loads */
    if (code >= 0) {
        /* it reads the file again for that, by this name */
        av_freep(&encoder->file->url);
        encoder->file->url = av_strdup(url);
        code = encoder->file->url ? avformat_write_header(encoder->file, &options) : AVERROR(ENOMEM);
    }
    av_dict_free(&options);
    return code >= 0 || failed("cannot be begun", code, why, size);
}

/* RGB to the picture form of video, by the coefficients that the file names. */
static bool open_colors(struct video_encoder *encoder, int width, int height)
{
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);

    encoder->colors = sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUV420P,
                                     SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    return encoder->colors && sws_setColorspaceDetails(encoder->colors, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16) >= 0;
}

static bool open_frame(struct video_encoder *encoder, int width, int height)
{
    encoder->packet = av_packet_alloc();
    encoder->frame = av_frame_alloc();
    if (!encoder->packet || !encoder->frame)
        return false;
    encoder->frame->width = width;
    encoder->frame->height = height;
    encoder->frame->format = AV_PIX_FMT_YUV420P;
    encoder->frame->pts = 0;
    return av_frame_get_buffer(encoder->frame, 0) >= 0;
}

static bool encoder_open(const char *path, int width, int height, int frames_per_second, int threads,
                         struct video_encoder **ret, char *why, size_t size)
{
    struct video_encoder *encoder = calloc(1, sizeof *encoder);
    size_t which = 0, count = sizeof encoders / sizeof *encoders;
    bool ok;

    av_log_set_level(AV_LOG_QUIET); /* what is wrong is in `why` */
    snprintf(why, size, "out of memory");
    if (!encoder)
        return false;
    ok = avformat_alloc_output_context2(&encoder->file, NULL, "mp4", NULL) >= 0;
    while (ok && which < count && !open_codec(encoder, which, width, height, frames_per_second, threads))
        which++;
    if (ok && which == count) {
        snprintf(why, size, "FFmpeg has no encoder for it here (neither libx264 nor mpeg4)");
        ok = false;
    }
    ok = ok && (encoder->stream = avformat_new_stream(encoder->file, NULL)) && open_colors(encoder, width, height) &&
         open_frame(encoder, width, height) && open_file(encoder, path, why, size);
    if (ok)
        *ret = encoder;
    else
        encoder_free(encoder);
    return ok;
}

/* frame: NULL at the end, for what the encoder still holds. */
static bool encode(struct video_encoder *encoder, AVFrame *frame, char *why, size_t size)
{
    int code = avcodec_send_frame(encoder->codec, frame);

    while (code >= 0) {
        code = avcodec_receive_packet(encoder->codec, encoder->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF)
            return true;
        if (code < 0)
            break;
        encoder->packet->duration = 1;
        encoder->packet->stream_index = encoder->stream->index;
        av_packet_rescale_ts(encoder->packet, encoder->codec->time_base, encoder->stream->time_base);
        code = av_interleaved_write_frame(encoder->file, encoder->packet);
        if (code >= 0 && encoder->file->pb->error < 0)
            code = encoder->file->pb->error;
    }
    return failed("cannot be written", code, why, size);
}

static bool encoder_write(struct video_encoder *encoder, const uint8_t *rgb, char *why, size_t size)
{
    const int stride = 3 * encoder->codec->width;
    int code = av_frame_make_writable(encoder->frame);

    if (code < 0)
        return failed("cannot be written", code, why, size);
    sws_scale(encoder->colors, &rgb, &stride, 0, encoder->codec->height, encoder->frame->data,
              encoder->frame->linesize);
    if (!encode(encoder, encoder->frame, why, size))
        return false;
    encoder->frame->pts++;
    return true;
}

static bool encoder_finish(struct video_encoder *encoder, char *why, size_t size)
{
    int code;

    if (!encode(encoder, NULL, why, size))
        return false;
    code = av_write_trailer(encoder->file);
    if (code >= 0 && encoder->file->pb->error < 0)
        code = encoder->file->pb->error;
    if (code >= 0)
        code = avio_closep(&encoder->file->pb);
    return code >= 0 || failed("cannot be written", code, why, size);
}

__attribute__((visibility("default"))) const struct video_encoder_object rfuav_video_object = {
    .abi = VIDEO_ENCODER_ABI,
    .open = encoder_open,
    .write = encoder_write,
    .finish = encoder_finish,
    .free = encoder_free,
};
