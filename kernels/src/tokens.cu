// Token rearrangements: patches, transposition, slices, prefix tokens, mean over tokens, and their
// adjoints. Mathematics as in tokens.rs, token_patches.rs, transpose_tokens.rs, first_tokens.rs,
// weight_rows.rs and prepend.rs. All are linear. A block of tangents is passed as more images, so
// these kernels have no tangents of their own.
//
// Launch: one thread per unit (`Planner::by_unit`). Copies use units of 2, 4, 8 or 16 bytes: the
// largest that divides the length of a contiguous piece and both its addresses. Patches of tokens
// and transposition move single numbers; the latter takes one block per square of 32 × 32 numbers.
#include "scalar.cuh"

constexpr int COPY_THREADS = 256;

// Index of the unit that this thread writes.
__device__ __forceinline__ size_t own_unit() {
    return size_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Sizes of an image or a grid of tokens, and of a patch.
struct PatchSizes {
    int channels, height, width, h, w;
};

// Index in a grid of tokens (H, W, C) if TOKENS, otherwise in an image (C, H, W), of number `at` of
// the patches (rows, cols, C, h, w).
template <bool TOKENS>
__device__ __forceinline__ size_t unpatched(const PatchSizes &s, size_t at) {
    const int j = int(at % s.w);
    at /= s.w;
    const int i = int(at % s.h);
    at /= s.h;
    const int c = int(at % s.channels);
    at /= s.channels;
    const size_t y = at / (s.width / s.w) * s.h + i, x = at % (s.width / s.w) * s.w + j;
    return TOKENS ? (y * s.width + x) * s.channels + c
                  : (size_t(c) * s.height + y) * s.width + x;
}

// (B, H·W, C) if TOKENS, otherwise (B, C, H, W) → (B, N, C·h·w), or the adjoint (BACK).
template <class U, bool TOKENS, bool BACK>
__device__ __forceinline__ void patches(const U *from, U *to, long long images, PatchSizes s) {
    const size_t each = size_t(s.channels) * s.height * s.width, at = own_unit();
    if (at >= images * each) return;
    const size_t image = at / each * each, there = image + unpatched<TOKENS>(s, at - image);
    if (BACK)
        to[there] = from[at];
    else
        to[at] = from[there];
}

// (B, T, n) → (B, n, T), one block per square of SQUARE × SQUARE numbers of an image.
constexpr int SQUARE = 32;
template <class U>
__device__ __forceinline__ void transpose_tokens(const U *x, U *y, int tokens, int n) {
    DYN_SHARED(U, square); // SQUARE rows of SQUARE + 1
    const int across = (n + SQUARE - 1) / SQUARE, down = (tokens + SQUARE - 1) / SQUARE;
    const int at = int(blockIdx.x % (unsigned(across) * down));
    const size_t image = blockIdx.x / (unsigned(across) * down) * (size_t(tokens) * n);
    const int t0 = at / across * SQUARE, c0 = at % across * SQUARE, lane = threadIdx.x;
    for (int i = threadIdx.y; i < SQUARE; i += blockDim.y)
        if (t0 + i < tokens && c0 + lane < n)
            square[i * (SQUARE + 1) + lane] = x[image + size_t(t0 + i) * n + c0 + lane];
    __syncthreads();
    for (int i = threadIdx.y; i < SQUARE; i += blockDim.y)
        if (c0 + i < n && t0 + lane < tokens)
            y[image + size_t(c0 + i) * tokens + t0 + lane] = square[lane * (SQUARE + 1) + i];
}

// `count` units from index `first` of each image of `len` units.
template <class U>
__device__ __forceinline__ void slice_value(const U *x, U *y, long long images, long long len,
                                            long long first, long long count) {
    const size_t at = own_unit();
    if (at >= size_t(images * count)) return;
    y[at] = x[at / count * len + first + at % count];
}
// VJP of the slice: zeros outside it.
template <class U>
__device__ __forceinline__ void slice_vjp(const U *gy, U *gx, long long images, long long len,
                                          long long first, long long count) {
    const size_t at = own_unit();
    if (at >= size_t(images * len)) return;
    const long long c = (long long)(at % len) - first;
    gx[at] = c >= 0 && c < count ? gy[at / len * count + c] : U{};
}

// Puts `prefix` units of t in front of the `len` units of each image. Each group of `share`
// consecutive images has its own t. Null pointers stand for zeros.
template <class U>
__device__ __forceinline__ void prepend_value(const U *t, const U *x, U *y, long long images,
                                              long long share, long long prefix, long long len) {
    const size_t at = own_unit();
    if (at >= size_t(images * (prefix + len))) return;
    const long long image = at / (prefix + len), c = at % (prefix + len);
    const U *from = c < prefix ? t : x;
    const long long there = c < prefix ? image / share * prefix + c : image * len + c - prefix;
    y[at] = from ? from[there] : U{};
}

// Mean over the tokens after the first `skip`: (B, T, D) → (B, D).
template <class E>
__device__ __forceinline__ void mean_tokens_value(const E *x, E *y, long long images, int tokens,
                                                  int n, int skip) {
    using A = arithmetic<E>;
    const size_t at = own_unit();
    if (at >= size_t(images * n)) return;
    const E *image = x + at / n * tokens * n + at % n;
    A sum = A(0);
    for (int t = skip; t < tokens; ++t) sum += widen(image[size_t(t) * n]);
    narrow(sum / A(tokens - skip), y[at]);
}
template <class E>
__device__ __forceinline__ void mean_tokens_vjp(const E *gy, E *gx, long long images, int tokens,
                                                int n, int skip) {
    using A = arithmetic<E>;
    const size_t at = own_unit(), each = size_t(tokens) * n;
    if (at >= images * each) return;
    const bool counts = at % each >= size_t(skip) * n;
    const E *from = gy + at / each * n + at % n;
    narrow(counts ? widen(*from) / A(tokens - skip) : A(0), gx[at]);
}

#define COPIES(suffix, U)                                                                          \
    ENTRY(COPY_THREADS, patches_value_##suffix, const U *x, U *y, long long images, int channels,  \
          int height, int width, int h, int w) {                                                   \
        patches<U, false, false>(x, y, images, PatchSizes{channels, height, width, h, w});         \
    }                                                                                              \
    ENTRY(COPY_THREADS, patches_vjp_##suffix, const U *gy, U *gx, long long images, int channels,  \
          int height, int width, int h, int w) {                                                   \
        patches<U, false, true>(gy, gx, images, PatchSizes{channels, height, width, h, w});        \
    }                                                                                              \
    ENTRY(COPY_THREADS, slice_value_##suffix, const U *x, U *y, long long images, long long len,   \
          long long first, long long count) {                                                      \
        slice_value<U>(x, y, images, len, first, count);                                           \
    }                                                                                              \
    ENTRY(COPY_THREADS, slice_vjp_##suffix, const U *gy, U *gx, long long images, long long len,   \
          long long first, long long count) {                                                      \
        slice_vjp<U>(gy, gx, images, len, first, count);                                           \
    }                                                                                              \
    ENTRY(COPY_THREADS, prepend_value_##suffix, const U *t, const U *x, U *y, long long images,    \
          long long share, long long prefix, long long len) {                                      \
        prepend_value<U>(t, x, y, images, share, prefix, len);                                     \
    }
COPIES(b2, unsigned short)
COPIES(b4, unsigned)
COPIES(b8, uint2)
COPIES(b16, uint4)

#define NUMBERS(suffix, U)                                                                         \
    ENTRY(COPY_THREADS, token_patches_value_##suffix, const U *x, U *y, long long images,          \
          int height, int width, int channels, int h, int w) {                                     \
        patches<U, true, false>(x, y, images, PatchSizes{channels, height, width, h, w});          \
    }                                                                                              \
    ENTRY(COPY_THREADS, token_patches_vjp_##suffix, const U *gy, U *gx, long long images,          \
          int height, int width, int channels, int h, int w) {                                     \
        patches<U, true, true>(gy, gx, images, PatchSizes{channels, height, width, h, w});         \
    }                                                                                              \
    ENTRY(COPY_THREADS, transpose_tokens_value_##suffix, const U *x, U *y, int tokens, int n) {    \
        transpose_tokens<U>(x, y, tokens, n);                                                      \
    }
NUMBERS(b2, unsigned short)
NUMBERS(b4, unsigned)
NUMBERS(b8, uint2)

#define MEAN_TOKENS(suffix, E)                                                                     \
    ENTRY(COPY_THREADS, mean_tokens_value_##suffix, const E *x, E *y, long long images,            \
          int tokens, int n, int skip) {                                                           \
        mean_tokens_value<E>(x, y, images, tokens, n, skip);                                       \
    }                                                                                              \
    ENTRY(COPY_THREADS, mean_tokens_vjp_##suffix, const E *gy, E *gx, long long images,            \
          int tokens, int n, int skip) {                                                           \
        mean_tokens_vjp<E>(gy, gx, images, tokens, n, skip);                                       \
    }
MEAN_TOKENS(f32, float)
MEAN_TOKENS(f64, double)
MEAN_TOKENS(bf16, Bf16)
