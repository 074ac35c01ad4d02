// SGD and AdamW steps, scaled additions and inner products over all tensors of a layer in one
// launch. The arithmetic is that of the program's optimizer.rs, in the type of the weights.
//
// Launch: one block of `CHUNK_THREADS` threads per chunk of `CHUNK` numbers
// (src/cuda/optimizer.rs). `finish_products`, one block, adds the chunks' inner products.
#include "rows.cuh"

constexpr int CHUNK_THREADS = 256;
constexpr int CHUNK = 8192;
// Maximum tensors per launch. The host splits longer lists.
constexpr int MAX_TENSORS = 24;
constexpr int PRODUCTS = 3;

// P lists of tensors with equal counts and sizes. Chunks are numbered consecutively; those of
// tensor i start at first[i]. Addresses are 64 bits wide.
template <int P> struct Tensors {
    unsigned long long at[P][MAX_TENSORS];
    long long numbers[MAX_TENSORS];
    int first[MAX_TENSORS + 1];
    int count;
};

// This block's chunk of every list.
template <class E, int P> struct Chunk {
    static constexpr int W = pack_width<E>;
    E *at[P];
    int numbers;
    bool wide;

    __device__ __forceinline__ explicit Chunk(const Tensors<P> &all) {
        int i = 0;
        while (i + 1 < all.count && int(blockIdx.x) >= all.first[i + 1]) ++i;
        const long long from = (long long)(blockIdx.x - all.first[i]) * CHUNK;
        numbers = int(min((long long)CHUNK, all.numbers[i] - from));
        wide = true;
#pragma unroll
        for (int p = 0; p < P; ++p) {
            at[p] = reinterpret_cast<E *>(all.at[p][i]);
            // All addresses of an absent list are null.
            if (at[p]) at[p] += from;
            wide = wide && aligned(at[p]);
        }
    }

    // Runs f on W numbers at a time; `full` tells whether all of them are in range.
    template <class F> __device__ __forceinline__ void each(F f) const {
        for (int c = threadIdx.x * W; c < numbers; c += blockDim.x * W) f(c, min(W, numbers - c));
    }
    __device__ __forceinline__ void load(int p, int c, int full, E (&x)[W]) const {
        if (wide && full == W) {
            alignas(16) E whole[W];
            load_wide<W>(at[p] + c, whole);
#pragma unroll
            for (int j = 0; j < W; ++j) x[j] = whole[j];
        } else {
#pragma unroll
            for (int j = 0; j < W; ++j) x[j] = j < full ? at[p][c + j] : E(0);
        }
    }
    __device__ __forceinline__ void store(int p, int c, int full, const E (&x)[W]) const {
        if (wide && full == W) {
            alignas(16) E whole[W];
#pragma unroll
            for (int j = 0; j < W; ++j) whole[j] = x[j];
            store_wide<W>(at[p] + c, whole);
        } else {
#pragma unroll
            for (int j = 0; j < W; ++j)
                if (j < full) at[p][c + j] = x[j];
        }
    }
};

// b ← μ b + g; y = w − η b, or with Nesterov momentum y = w − η (g + μ b). g is the gradient plus λ
// w. Lists: w, g, b, y; y may be w.
template <class E>
__device__ __forceinline__ void sgd_step(const Tensors<4> &all, double rate, double momentum,
                                         double decay, int nesterov) {
    constexpr int W = Chunk<E, 4>::W;
    const Chunk<E, 4> chunk(all);
    const E eta = E(rate), mu = E(momentum), lambda = E(decay);
    chunk.each([&](int c, int full) {
        E w[W], g[W], b[W];
        chunk.load(0, c, full, w);
        chunk.load(1, c, full, g);
        chunk.load(2, c, full, b);
#pragma unroll
        for (int j = 0; j < W; ++j) {
            const E d = g[j] + lambda * w[j];
            b[j] = mu * b[j] + d;
            w[j] -= eta * (nesterov ? d + mu * b[j] : b[j]);
        }
        chunk.store(2, c, full, b);
        chunk.store(3, c, full, w);
    });
}

// m ← m + (1 − β₁)(g − m); v ← β₂ v + (1 − β₂) g²; y = keep w − scale m/(√v / root + ε), where keep
// = 1 − η λ, scale = η/(1 − β₁ᵗ), root = √(1 − β₂ᵗ). Lists: w, g, m, v, y; y may be w.
template <class E>
__device__ __forceinline__ void adamw_step(const Tensors<5> &all, double beta1, double beta2,
                                           double eps, double keep, double scale, double root) {
    constexpr int W = Chunk<E, 5>::W;
    const Chunk<E, 5> chunk(all);
    const E a1 = E(1 - beta1), a2 = E(1 - beta2), b2 = E(beta2), e = E(eps);
    const E stay = E(keep), step = E(scale), r = E(root);
    chunk.each([&](int c, int full) {
        E w[W], g[W], m[W], v[W];
        chunk.load(0, c, full, w);
        chunk.load(1, c, full, g);
        chunk.load(2, c, full, m);
        chunk.load(3, c, full, v);
#pragma unroll
        for (int j = 0; j < W; ++j) {
            m[j] += a1 * (g[j] - m[j]);
            v[j] = b2 * v[j] + a2 * g[j] * g[j];
            w[j] = stay * w[j] - step * m[j] / (real_sqrt(v[j]) / r + e);
        }
        chunk.store(2, c, full, m);
        chunk.store(3, c, full, v);
        chunk.store(4, c, full, w);
    });
}

// Adds PRODUCTS sums over the block, in the order of warps, and writes them.
__device__ __forceinline__ void put_products(double (&sums)[PRODUCTS], double *to) {
    DYN_SHARED(double, scratch); // PRODUCTS numbers per warp
#pragma unroll
    for (int i = 0; i < PRODUCTS; ++i)
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) sums[i] += __shfl_xor_sync(~0u, sums[i], o);
    const int warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (int i = 0; i < PRODUCTS; ++i) scratch[threadIdx.x / 32 * PRODUCTS + i] = sums[i];
    __syncthreads();
    if (threadIdx.x >= PRODUCTS) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += scratch[w * PRODUCTS + threadIdx.x];
    to[threadIdx.x] = total;
}

// Σ a², Σ a b and Σ b² of each chunk in f64. Without list b, only Σ a². Lists: a, b.
template <class E> __device__ __forceinline__ void products(const Tensors<2> &all, double *partial) {
    constexpr int W = Chunk<E, 2>::W;
    const Chunk<E, 2> chunk(all);
    double sums[PRODUCTS] = {};
    chunk.each([&](int c, int full) {
        E a[W], b[W] = {};
        chunk.load(0, c, full, a);
        if (chunk.at[1]) chunk.load(1, c, full, b);
#pragma unroll
        for (int j = 0; j < W; ++j) {
            sums[0] += double(a[j]) * double(a[j]);
            sums[1] += double(a[j]) * double(b[j]);
            sums[2] += double(b[j]) * double(b[j]);
        }
    });
    put_products(sums, partial + size_t(blockIdx.x) * PRODUCTS);
}

// y = x + factor · d. Lists: x, d, y; y may be x.
template <class E> __device__ __forceinline__ void axpy(const Tensors<3> &all, double factor) {
    constexpr int W = Chunk<E, 3>::W;
    const Chunk<E, 3> chunk(all);
    const E by = E(factor);
    chunk.each([&](int c, int full) {
        E x[W], d[W];
        chunk.load(0, c, full, x);
        chunk.load(1, c, full, d);
#pragma unroll
        for (int j = 0; j < W; ++j) x[j] += by * d[j];
        chunk.store(2, c, full, x);
    });
}

// y = x (|w| + η), the scaling of a gradient in ASAM. Lists: x, w, y; y may be x.
template <class E>
__device__ __forceinline__ void by_magnitude(const Tensors<3> &all, double eta) {
    constexpr int W = Chunk<E, 3>::W;
    const Chunk<E, 3> chunk(all);
    const E least = E(eta);
    chunk.each([&](int c, int full) {
        E x[W], w[W];
        chunk.load(0, c, full, x);
        chunk.load(1, c, full, w);
#pragma unroll
        for (int j = 0; j < W; ++j) x[j] *= (w[j] < E(0) ? -w[j] : w[j]) + least;
        chunk.store(2, c, full, x);
    });
}

// Adds the sums of all chunks. Each thread adds every blockDim.x-th one; then as in put_products.
ENTRY(CHUNK_THREADS, finish_products, const double *partial, int chunks, double *total) {
    double sums[PRODUCTS] = {};
    for (int b = threadIdx.x; b < chunks; b += blockDim.x)
#pragma unroll
        for (int i = 0; i < PRODUCTS; ++i) sums[i] += partial[size_t(b) * PRODUCTS + i];
    put_products(sums, total);
}

#define OPTIMIZER(suffix, E)                                                                       \
    ENTRY(CHUNK_THREADS, sgd_step_##suffix, Tensors<4> all, double rate, double momentum,          \
          double decay, int nesterov) {                                                            \
        sgd_step<E>(all, rate, momentum, decay, nesterov);                                         \
    }                                                                                              \
    ENTRY(CHUNK_THREADS, adamw_step_##suffix, Tensors<5> all, double beta1, double beta2,          \
          double eps, double keep, double scale, double root) {                                    \
        adamw_step<E>(all, beta1, beta2, eps, keep, scale, root);                                  \
    }                                                                                              \
    ENTRY(CHUNK_THREADS, products_##suffix, Tensors<2> all, double *partial) {                     \
        products<E>(all, partial);                                                                 \
    }                                                                                              \
    ENTRY(CHUNK_THREADS, axpy_##suffix, Tensors<3> all, double factor) {                           \
        axpy<E>(all, factor);                                                                      \
    }                                                                                              \
    ENTRY(CHUNK_THREADS, by_magnitude_##suffix, Tensors<3> all, double eta) {                      \
        by_magnitude<E>(all, eta);                                                                 \
    }
OPTIMIZER(f32, float)
OPTIMIZER(f64, double)
