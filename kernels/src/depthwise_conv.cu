// Depthwise convolution of a grid of tokens (B, H·W, C), and its VJPs. Mathematics as in
// depthwise_conv.rs.
//
// Launch: `value` and `vjp_input` take blocks of 32 channels × RUNS runs of RUN neighbouring columns
// of the output. A block stages one row of its filters at a time in shared memory, with tangents.
// `vjp_weight` takes one block per range of rows of the output, 32 channels, and up to 16 places of
// one row of the filter. It writes partial sums, which `sum_partials` adds.
#include "rows.cuh"

constexpr int CONV_THREADS = 512;
// Columns that a thread computes. They share the numbers of the filter.
constexpr int RUN = 4;

// Sizes of to[i, j] = Σ w[u, v] from[i + u − top, j + v − left].
struct ConvSizes {
    int height, width; // of `from`
    int rows, cols;    // of `to`
    int channels, kh, kw, top, left;
};

// y = conv(x, w) + b, or with TURNED filters. A null b is zero.
template <class E, int K, bool TURNED>
__device__ __forceinline__ void
correlate(const E *x, const E *tx, const arithmetic<E> *w, const arithmetic<E> *tw,
          const arithmetic<E> *b, const arithmetic<E> *tb, E *y, E *ty, long long images,
          const ConvSizes &s) {
    using A = arithmetic<E>;
    using S = Dual<A, K>;
    DYN_SHARED(A, filter); // (1 + K, kw, 32)
    const int lane = threadIdx.x, c = int(blockIdx.y) * 32 + lane, area = s.kh * s.kw;
    const int runs = (s.cols + RUN - 1) / RUN;
    const size_t unit = size_t(blockIdx.x) * blockDim.y + threadIdx.y;
    const bool inside = c < s.channels && unit < size_t(images) * s.rows * runs;
    const int j = int(unit % runs) * RUN, i = int(unit / runs % s.rows);
    const size_t image = unit / runs / s.rows;
    const size_t from_plane = size_t(images) * s.height * s.width * s.channels;

    S sums[RUN];
    const S start = b && c < s.channels ? number<A, K>(b, tb, c, s.channels) : S::constant(A(0));
#pragma unroll
    for (int p = 0; p < RUN; ++p) sums[p] = start;
    for (int u = 0; u < s.kh; ++u) {
        __syncthreads(); // all threads have read the previous row of the filter
        for (int v = threadIdx.y; v < s.kw; v += blockDim.y) {
            const int place = TURNED ? area - 1 - (u * s.kw + v) : u * s.kw + v;
            const S one = c < s.channels ? number<A, K>(w, tw, size_t(c) * area + place,
                                                        size_t(s.channels) * area)
                                         : S::constant(A(0));
#pragma unroll
            for (int k = 0; k <= K; ++k) filter[(k * s.kw + v) * 32 + lane] = one.part[k];
        }
        __syncthreads();
        const int row = i + u - s.top;
        if (!inside || row < 0 || row >= s.height) continue;
        const size_t at = (image * s.height + row) * s.width;
        const auto column = [&](int j) {
            return j >= 0 && j < s.width
                       ? number<E, K>(x, tx, (at + j) * s.channels + c, from_plane)
                       : S::constant(A(0));
        };
        // RUN neighbouring numbers of the row, which move by one column per place of the filter.
        S window[RUN];
#pragma unroll
        for (int p = 1; p < RUN; ++p) window[p] = column(j + p - 1 - s.left);
        for (int v = 0; v < s.kw; ++v) {
            S weight;
#pragma unroll
            for (int k = 0; k <= K; ++k) weight.part[k] = filter[(k * s.kw + v) * 32 + lane];
#pragma unroll
            for (int p = 1; p < RUN; ++p) window[p - 1] = window[p];
            window[RUN - 1] = column(j + RUN - 1 + v - s.left);
#pragma unroll
            for (int p = 0; p < RUN; ++p) sums[p] = sums[p] + weight * window[p];
        }
    }
    if (!inside) return;
    const size_t plane = size_t(images) * s.rows * s.cols * s.channels;
    const size_t to = ((image * s.rows + i) * s.cols + j) * s.channels + c;
#pragma unroll
    for (int p = 0; p < RUN; ++p) {
        if (j + p >= s.cols) continue;
#pragma unroll
        for (int k = 0; k <= K; ++k)
            narrow(sums[p].part[k], (k == 0 ? y : ty + (k - 1) * plane)[to + size_t(p) * s.channels]);
    }
}

// gw[u, v] = Σ gy[i, j] x[i + u − top, j + v − left] over this block's rows of gy.
template <class E, int K>
__device__ __forceinline__ void
conv_vjp_weight(const E *x, const E *tx, const E *gy, const E *t_gy, arithmetic<E> *partial,
                long long images, const ConvSizes &s) {
    using A = arithmetic<E>;
    using S = Dual<A, K>;
    const int tiles = (s.kw + blockDim.y - 1) / blockDim.y;
    const int c = int(blockIdx.y) * 32 + threadIdx.x, u = int(blockIdx.z) / tiles;
    const int v = int(blockIdx.z) % tiles * int(blockDim.y) + threadIdx.y;
    if (c >= s.channels || v >= s.kw) return;
    const size_t each = size_t(images) * s.channels;
    const size_t from_plane = each * s.height * s.width, to_plane = each * s.rows * s.cols;
    const int begin = max(0, s.left - v), end = min(s.cols, s.width + s.left - v);
    S sum = S::constant(A(0));
    const Range range(size_t(images) * s.rows);
    for (size_t r = range.from; r < range.to; ++r) {
        const int row = int(r % s.rows) + u - s.top;
        if (row < 0 || row >= s.height) continue;
        const size_t from = (r / s.rows * s.height + row) * s.width + v;
        for (int j = begin; j < end; ++j)
            sum = sum + number<E, K>(gy, t_gy, (r * s.cols + j) * s.channels + c, to_plane) *
                            number<E, K>(x, tx, (from + j - s.left) * s.channels + c, from_plane);
    }
    const size_t n = size_t(s.channels) * s.kh * s.kw;
    A *to = partial + blockIdx.x * (K + 1) * n + (size_t(c) * s.kh + u) * s.kw + v;
#pragma unroll
    for (int k = 0; k <= K; ++k) to[k * n] = sum.part[k];
}

#define DEPTHWISE_CONV(suffix, E, K)                                                               \
    ENTRY(CONV_THREADS, depthwise_conv_value_##suffix##_k##K, const E *x, const E *tx,             \
          const arithmetic<E> *w, const arithmetic<E> *tw, const arithmetic<E> *b,                 \
          const arithmetic<E> *tb, E *y, E *ty, long long images, int height, int width, int rows, \
          int cols, int channels, int kh, int kw, int top, int left) {                             \
        const ConvSizes s{height, width, rows, cols, channels, kh, kw, top, left};                 \
        correlate<E, K, false>(x, tx, w, tw, b, tb, y, ty, images, s);                             \
    }                                                                                              \
    ENTRY(CONV_THREADS, depthwise_conv_vjp_input_##suffix##_k##K, const E *gy, const E *t_gy,      \
          const arithmetic<E> *w, const arithmetic<E> *tw, E *gx, E *t_gx, long long images,       \
          int height, int width, int rows, int cols, int channels, int kh, int kw, int top,        \
          int left) {                                                                              \
        const ConvSizes s{height, width, rows, cols, channels, kh, kw, top, left};                 \
        correlate<E, K, true>(gy, t_gy, w, tw, nullptr, nullptr, gx, t_gx, images, s);             \
    }                                                                                              \
    ENTRY(CONV_THREADS, depthwise_conv_vjp_weight_##suffix##_k##K, const E *x, const E *tx,        \
          const E *gy, const E *t_gy, arithmetic<E> *partial, long long images, int height,        \
          int width, int rows, int cols, int channels, int kh, int kw, int top, int left) {        \
        const ConvSizes s{height, width, rows, cols, channels, kh, kw, top, left};                 \
        conv_vjp_weight<E, K>(x, tx, gy, t_gy, partial, images, s);                                \
    }
FOR_EACH_DUAL(DEPTHWISE_CONV)
