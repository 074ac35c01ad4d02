// Cross-entropy between logits and class labels, per row, and its VJP. Mathematics as in
// cross_entropy.rs.
//
// Launch: row kernels (`Planner::by_row`). Labels were checked against the number of classes.
#include "rows.cuh"

// yᵢ = log Σⱼ exp(xᵢⱼ − m) − (1 − s)(xᵢₜ − m) − s/C Σⱼ (xᵢⱼ − m), where m is the row's maximum.
template <class E, int K>
__device__ __forceinline__ void cross_entropy_value(const E *x, const E *tx, const unsigned *labels,
                                                    E *y, E *ty, size_t rows, int n,
                                                    double smoothing) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, x, tx);
    const auto in = row.input(x, tx);
    const S m = row.detached_max([](int, const S &x) { return x; }, in);
    const Two<S> sums = row.sum(
        [&](int, const S &x) {
            const S shifted = x - m;
            return Two<S>{exp_of(shifted), shifted};
        },
        in);
    const S target = row.single(x, tx, int(labels[row.row]), n) - m;
    S loss = log_of(sums.first) - target * A(1 - smoothing);
    if (smoothing > 0) loss = loss - sums.second * A(smoothing / n);
    row.put_single(y, ty, loss);
}

// gxᵢⱼ = gyᵢ (softmax(xᵢ)ⱼ − (1 − s) [j = t] − s/C).
template <class E, int K>
__device__ __forceinline__ void
cross_entropy_vjp(const E *x, const E *tx, const unsigned *labels, const E *gy, const E *t_gy,
                  E *gx, E *t_gx, size_t rows, int n, double smoothing) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, x, tx, gx, t_gx);
    const auto in = row.input(x, tx);
    const S m = row.detached_max([](int, const S &x) { return x; }, in);
    const S total = row.sum([&](int, const S &x) { return exp_of(x - m); }, in);
    const S weight = row.single(gy, t_gy, 0, 1);
    const S scale = weight / total;
    const S everywhere = weight * A(smoothing / n), there = weight * A(1 - smoothing);
    const int label = int(labels[row.row]);
    row.write(
        gx, t_gx,
        [&](int c, const S &x) {
            const S g = exp_of(x - m) * scale - everywhere;
            return c == label ? g - there : g;
        },
        in);
}

#define CROSS_ENTROPY(suffix, E, K)                                                                \
    ENTRY(ROW_THREADS, cross_entropy_value_##suffix##_k##K, const E *x, const E *tx,               \
          const unsigned *labels, E *y, E *ty, long long rows, int n, double smoothing) {          \
        cross_entropy_value<E, K>(x, tx, labels, y, ty, rows, n, smoothing);                       \
    }                                                                                              \
    ENTRY(ROW_THREADS, cross_entropy_vjp_##suffix##_k##K, const E *x, const E *tx,                 \
          const unsigned *labels, const E *gy, const E *t_gy, E *gx, E *t_gx, long long rows,      \
          int n, double smoothing) {                                                               \
        cross_entropy_vjp<E, K>(x, tx, labels, gy, t_gy, gx, t_gx, rows, n, smoothing);            \
    }
FOR_EACH_DUAL(CROSS_ENTROPY)
