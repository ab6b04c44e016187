/* resize_avx2.c - see resize_kernels.h. A weight of 22 bits is split in two halves, each of which fits the 16-bit
 * multiply-add that sums two products a lane: four pixels take two multiplications, and the sum is still exact. */
#include "data/resize_kernels.h"

#ifdef __x86_64__
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))

/* Sum of the two halves' sums over both lanes, as bytes r, g, b, - */
AVX2 static inline uint32_t finish(__m256i upper, __m256i lower)
{
    __m256i both = _mm256_add_epi32(_mm256_slli_epi32(upper, SPLIT_BITS), lower);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));

    sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(RESAMPLE_HALF)), RESAMPLE_BITS);
    sum = _mm_packus_epi32(sum, sum);
    return (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
}

AVX2 static void horizontal(const struct weights *weights, int n, const uint8_t *const in[ROWS],
                            uint8_t *const out[ROWS])
{
    /* bytes r0 g0 b0 r1 … b3 to words r0 r1 g0 g1 b0 b1 0 0 of pixels 0 and 1 in the low lane, 2 and 3 in the high */
    const __m256i pairs = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7,
                                           -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    /* of the split weights (upper 01, upper 23, lower 01, lower 23): those for the low lane and for the high */
    const __m256i upper_words = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m256i lower_words = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);

    for (int i = 0; i < n; i++) {
        const int16_t *split = weights->split + 2 * (size_t)i * (size_t)weights->resample.taps;
        size_t at = 3 * (size_t)weights->resample.first[i];
        __m256i upper[ROWS], lower[ROWS];

        for (int r = 0; r < ROWS; r++)
            upper[r] = lower[r] = _mm256_setzero_si256();
        for (int t = 0; t < weights->resample.count[i]; t += 4, at += 12, split += 8) {
            __m256 four = _mm256_castsi256_ps(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)split)));
            __m256i upper_weights = _mm256_castps_si256(_mm256_permutevar_ps(four, upper_words));
            __m256i lower_weights = _mm256_castps_si256(_mm256_permutevar_ps(four, lower_words));

            for (int r = 0; r < ROWS; r++) {
                __m256i pixels = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(in[r] + at)));

                pixels = _mm256_shuffle_epi8(pixels, pairs);
                upper[r] = _mm256_add_epi32(upper[r], _mm256_madd_epi16(pixels, upper_weights));
                lower[r] = _mm256_add_epi32(lower[r], _mm256_madd_epi16(pixels, lower_weights));
            }
        }
        for (int r = 0; r < ROWS; r++) {
            uint32_t rgb = finish(upper[r], lower[r]);

            memcpy(out[r] + 3 * (size_t)i, &rgb, 3);
        }
    }
}

AVX2 static void vertical(const int32_t *weight, int count, const uint8_t *in, size_t bytes, uint8_t *out)
{
    size_t j = 0;

    for (; j + 8 <= bytes; j += 8) {
        __m256i sum = _mm256_set1_epi32(RESAMPLE_HALF);
        __m128i half;

        for (int t = 0; t < count; t++) {
            __m256i eight = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(in + (size_t)t * bytes + j)));

            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(eight, _mm256_set1_epi32(weight[t])));
        }
        sum = _mm256_srai_epi32(sum, RESAMPLE_BITS);
        half = _mm_packus_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storel_epi64((void *)(out + j), _mm_packus_epi16(half, half));
    }
    for (; j < bytes; j++) {
        int32_t sum = RESAMPLE_HALF;

        for (int t = 0; t < count; t++)
            sum += in[(size_t)t * bytes + j] * weight[t];
        out[j] = resize_to_byte(sum);
    }
}

const struct resize_kernels resize_kernels_avx2 = {horizontal, vertical};
#endif
