// Sums and scalings (y = a + b, y = r + (x + b), y = factor · x, y = x γ), and sums over rows.
// Mathematics as in pointwise.rs.
//
// Launch: elementwise (`Planner::by_element`). sum_rows and layer_scale_vjp_gamma are column sums
// (`Planner::by_tile`, finished by `sum_partials`).
//
// A thread reads its part of a tile before it writes it, so an output may be one of the inputs if
// one launch carries all tangents.
#include "rows.cuh"

// y = a + b.
template <class E, int K>
__device__ __forceinline__ void add_value(const E *a, const E *ta, const E *b, const E *tb, E *y,
                                          E *ty, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, a, ta, b, tb, y, ty);
    const auto left = row.input(a, ta);
    const auto right = row.input(b, tb);
    row.write(y, ty, [](int, const S &a, const S &b) { return a + b; }, left, right);
}

// y = a + b, the same b for every row.
template <class E, int K>
__device__ __forceinline__ void bias_value(const E *a, const E *ta, const arithmetic<E> *b,
                                           const arithmetic<E> *tb, E *y, E *ty, size_t rows,
                                           int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, a, ta, b, tb, y, ty);
    const auto left = row.input(a, ta);
    const auto bias = row.shared(b, tb);
    row.write(y, ty, [](int, const S &a, const S &b) { return a + b; }, left, bias);
}

// y = r + (x + b): a projection's bias and the residual connection around it. The cotangents of x
// and r are gy; that of b is sum_rows of gy.
template <class E, int K>
__device__ __forceinline__ void
bias_residual_value(const E *x, const E *tx, const arithmetic<E> *b, const arithmetic<E> *tb,
                    const E *r, const E *tr, E *y, E *ty, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, b, tb, r, tr, y, ty);
    const auto in = row.input(x, tx);
    const auto bias = row.shared(b, tb);
    const auto residual = row.input(r, tr);
    row.write(
        y, ty, [](int, const S &x, const S &b, const S &r) { return r + (x + b); }, in, bias,
        residual);
}

// y = factor · x.
template <class E, int K>
__device__ __forceinline__ void scale_value(const E *x, const E *tx, E *y, E *ty, size_t rows,
                                            int n, double factor) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, y, ty);
    const auto in = row.input(x, tx);
    row.write(y, ty, [=](int, const S &x) { return x * A(factor); }, in);
}

// y = x γ, per channel. With gy instead of x it computes gx.
template <class E, int K>
__device__ __forceinline__ void layer_scale_value(const E *x, const E *tx,
                                                  const arithmetic<E> *gamma,
                                                  const arithmetic<E> *t_gamma, E *y, E *ty,
                                                  size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, gamma, t_gamma, y, ty);
    const auto in = row.input(x, tx);
    const auto g = row.shared(gamma, t_gamma);
    row.write(y, ty, [](int, const S &x, const S &g) { return x * g; }, in, g);
}

// gγ = Σ gy x over rows.
template <class E, int K>
__device__ __forceinline__ void layer_scale_vjp_gamma(const E *x, const E *tx, const E *gy,
                                                      const E *t_gy, arithmetic<E> *partial,
                                                      size_t rows, int n) {
    using S = typename Row<E, K>::S;
    const int tile = blockIdx.y;
    Pack<S, pack_width<E>> sums{};
    const Range range(rows);
    for (size_t r = range.from; r < range.to; ++r) {
        const Row<E, K> row(rows, r, n, tile, x, tx, gy, t_gy);
        const auto in = row.input(x, tx);
        const auto cotangent = row.input(gy, t_gy);
        accumulate(sums, row.map_cached([](int, const S &x, const S &gy) { return x * gy; }, in,
                                      cotangent));
    }
    const Row<E, K> row(rows, 0, n, tile, x, tx, gy, t_gy);
    put_partial<E, K>(partial, n, 0, 1, tile, sums, row.wide);
}

// Σ over rows: the VJP of a broadcast.
template <class E, int K>
__device__ __forceinline__ void sum_rows(const E *x, const E *tx, arithmetic<E> *partial,
                                         size_t rows, int n) {
    using S = typename Row<E, K>::S;
    const int tile = blockIdx.y;
    Pack<S, pack_width<E>> sums{};
    const Range range(rows);
    for (size_t r = range.from; r < range.to; ++r) {
        const Row<E, K> row(rows, r, n, tile, x, tx);
        accumulate(sums, row.map_cached([](int, const S &x) { return x; }, row.input(x, tx)));
    }
    const Row<E, K> row(rows, 0, n, tile, x, tx);
    put_partial<E, K>(partial, n, 0, 1, tile, sums, row.wide);
}

// Stage two of every column sum. It computes one number for each of `n` columns of the value and of
// each tangent. A block covers 32 columns and reads blockDim.y partial sums in parallel. `stride`
// is the distance between the partial sums of consecutive blocks. Column c of the value goes to
// value[c], of tangent k to tangent[k n + c].
template <class A>
__device__ __forceinline__ void sum_partials(const A *partial, long long stride, int blocks, int n,
                                             int planes, A *value, A *tangent) {
    DYN_SHARED(A, parts); // blockDim.y rows of 32
    const size_t c = size_t(blockIdx.x) * 32 + threadIdx.x;
    const bool inside = c < size_t(n) * planes;
    A sum = A(0);
    if (inside)
        for (int b = threadIdx.y; b < blocks; b += blockDim.y) sum += partial[b * stride + c];
    parts[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || !inside) return;
    for (int i = 1; i < int(blockDim.y); ++i) sum += parts[i * 32 + threadIdx.x];
    if (c < size_t(n))
        value[c] = sum;
    else
        tangent[c - n] = sum;
}

#define POINTWISE(suffix, E, K)                                                                    \
    ENTRY(ROW_THREADS, add_value_##suffix##_k##K, const E *a, const E *ta, const E *b,             \
          const E *tb, E *y, E *ty, long long rows, int n) {                                       \
        add_value<E, K>(a, ta, b, tb, y, ty, rows, n);                                             \
    }                                                                                              \
    ENTRY(ROW_THREADS, bias_value_##suffix##_k##K, const E *a, const E *ta,                        \
          const arithmetic<E> *b, const arithmetic<E> *tb, E *y, E *ty, long long rows, int n) {   \
        bias_value<E, K>(a, ta, b, tb, y, ty, rows, n);                                            \
    }                                                                                              \
    ENTRY(ROW_THREADS, bias_residual_value_##suffix##_k##K, const E *x, const E *tx,               \
          const arithmetic<E> *b, const arithmetic<E> *tb, const E *r, const E *tr, E *y, E *ty,   \
          long long rows, int n) {                                                                 \
        bias_residual_value<E, K>(x, tx, b, tb, r, tr, y, ty, rows, n);                            \
    }                                                                                              \
    ENTRY(ROW_THREADS, scale_value_##suffix##_k##K, const E *x, const E *tx, E *y, E *ty,          \
          long long rows, int n, double factor) {                                                  \
        scale_value<E, K>(x, tx, y, ty, rows, n, factor);                                          \
    }                                                                                              \
    ENTRY(ROW_THREADS, layer_scale_value_##suffix##_k##K, const E *x, const E *tx,                 \
          const arithmetic<E> *gamma, const arithmetic<E> *t_gamma, E *y, E *ty, long long rows,   \
          int n) {                                                                                 \
        layer_scale_value<E, K>(x, tx, gamma, t_gamma, y, ty, rows, n);                            \
    }                                                                                              \
    ENTRY(ROW_THREADS, layer_scale_vjp_gamma_##suffix##_k##K, const E *x, const E *tx,             \
          const E *gy, const E *t_gy, arithmetic<E> *partial, long long rows, int n) {             \
        layer_scale_vjp_gamma<E, K>(x, tx, gy, t_gy, partial, rows, n);                            \
    }                                                                                              \
    ENTRY(ROW_THREADS, sum_rows_##suffix##_k##K, const E *x, const E *tx, arithmetic<E> *partial,  \
          long long rows, int n) {                                                                 \
        sum_rows<E, K>(x, tx, partial, rows, n);                                                   \
    }
FOR_EACH_DUAL(POINTWISE)

#define SUM_PARTIALS(suffix, A)                                                                    \
    ENTRY(ROW_THREADS, sum_partials_##suffix, const A *partial, long long stride, int blocks,      \
          int n, int planes, A *value, A *tangent) {                                               \
        sum_partials<A>(partial, stride, blocks, n, planes, value, tangent);                       \
    }
SUM_PARTIALS(f32, float)
SUM_PARTIALS(f64, double)
