// Softmax over rows, and its VJP from the output. Mathematics as in softmax.rs. Also used for
// attention scores, whose rows are (image, head, query).
//
// Launch: row kernels (`Planner::by_row`).
#include "rows.cuh"

// yᵢ = exp(xᵢ − m) / Σⱼ exp(xⱼ − m), where m is the row's maximum.
template <class E, int K>
__device__ __forceinline__ void softmax_value(const E *x, const E *tx, E *y, E *ty, size_t rows,
                                              int n) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, x, tx, y, ty);
    const auto in = row.input(x, tx);
    const S m = row.detached_max([](int, const S &x) { return x; }, in);
    const S total = row.sum([&](int, const S &x) { return exp_of(x - m); }, in);
    const S scale = S::constant(A(1)) / total;
    row.write(y, ty, [&](int, const S &x) { return exp_of(x - m) * scale; }, in);
}

// gxᵢ = yᵢ (gyᵢ − Σⱼ gyⱼ yⱼ).
template <class E, int K>
__device__ __forceinline__ void softmax_vjp(const E *y, const E *ty, const E *gy, const E *t_gy,
                                            E *gx, E *t_gx, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, y, ty, gy, t_gy, gx, t_gx);
    const auto out = row.input(y, ty);
    const auto cotangent = row.input(gy, t_gy);
    const S mean = row.sum([](int, const S &y, const S &gy) { return y * gy; }, out, cotangent);
    row.write(
        gx, t_gx, [&](int, const S &y, const S &gy) { return y * (gy - mean); }, out, cotangent);
}

#define SOFTMAX(suffix, E, K)                                                                      \
    ENTRY(ROW_THREADS, softmax_value_##suffix##_k##K, const E *x, const E *tx, E *y, E *ty,        \
          long long rows, int n) {                                                                 \
        softmax_value<E, K>(x, tx, y, ty, rows, n);                                                \
    }                                                                                              \
    ENTRY(ROW_THREADS, softmax_vjp_##suffix##_k##K, const E *y, const E *ty, const E *gy,          \
          const E *t_gy, E *gx, E *t_gx, long long rows, int n) {                                  \
        softmax_vjp<E, K>(y, ty, gy, t_gy, gx, t_gx, rows, n);                                     \
    }
FOR_EACH_DUAL(SOFTMAX)
