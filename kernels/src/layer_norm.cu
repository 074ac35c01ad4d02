// Layer norm y = γ (x − μ)/√(σ² + ε) + β over rows, and its VJPs. Mathematics as in layer_norm.rs.
//
// Launch: value and vjp_input are row kernels (`Planner::by_row`). vjp_parameters is a column sum
// (`Planner::by_tile`, finished by `sum_partials`).
#include "rows.cuh"

// Mean and 1/√(variance + ε) of a row. The variance uses centred numbers.
template <class E, int K> struct Moments {
    using S = typename Row<E, K>::S;
    S mean, inverse;
    __device__ __forceinline__ Moments(const Row<E, K> &row, const Input<E, K, pack_width<E>> &x,
                                       double eps) {
        using A = arithmetic<E>;
        const A per_column = A(1) / A(row.n);
        mean = row.sum([](int, const S &x) { return x; }, x) * per_column;
        const S m = mean;
        const S variance = row.sum(
                               [=](int, const S &x) {
                                   const S d = x - m;
                                   return d * d;
                               },
                               x) *
                           per_column;
        inverse = S::constant(A(1)) / sqrt_of(variance + A(eps));
    }
};

// y = γ (x − μ)/√(σ² + ε) + β.
template <class E, int K>
__device__ __forceinline__ void
layer_norm_value(const E *x, const E *tx, const arithmetic<E> *gamma, const arithmetic<E> *t_gamma,
                 const arithmetic<E> *beta, const arithmetic<E> *t_beta, E *y, E *ty,
                 size_t rows, int n, double eps) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, x, tx, gamma, t_gamma, beta, t_beta, y, ty);
    const auto in = row.input(x, tx);
    const auto g = row.shared(gamma, t_gamma);
    const auto b = row.shared(beta, t_beta);
    const Moments<E, K> of(row, in, eps);
    row.write(
        y, ty,
        [&](int, const S &x, const S &g, const S &b) {
            return (x - of.mean) * of.inverse * g + b;
        },
        in, g, b);
}

// gx = (h − mean(h) − x̂ mean(h x̂))/√(σ² + ε), where h = γ gy.
template <class E, int K>
__device__ __forceinline__ void
layer_norm_vjp_input(const E *x, const E *tx, const arithmetic<E> *gamma,
                     const arithmetic<E> *t_gamma, const E *gy, const E *t_gy, E *gx, E *t_gx,
                     size_t rows, int n, double eps) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, x, tx, gamma, t_gamma, gy, t_gy, gx, t_gx);
    const auto in = row.input(x, tx);
    const auto g = row.shared(gamma, t_gamma);
    const auto cotangent = row.input(gy, t_gy);
    const Moments<E, K> of(row, in, eps);
    const Two<S> sums = row.sum(
        [&](int, const S &x, const S &g, const S &gy) {
            const S h = g * gy;
            return Two<S>{h, h * (x - of.mean)};
        },
        in, g, cotangent);
    const A per_column = A(1) / A(n);
    const S of_h = sums.first * per_column;
    const S of_hx = sums.second * of.inverse * per_column;
    row.write(
        gx, t_gx,
        [&](int, const S &x, const S &g, const S &gy) {
            const S normal = (x - of.mean) * of.inverse;
            return (g * gy - of_h - normal * of_hx) * of.inverse;
        },
        in, g, cotangent);
}

// gγ = Σ gy x̂ and gβ = Σ gy over rows, in slots 0 and 1 of each block's partial sums.
template <class E, int K>
__device__ __forceinline__ void
layer_norm_vjp_parameters(const E *x, const E *tx, const E *gy, const E *t_gy,
                          arithmetic<E> *partial, size_t rows, int n, double eps) {
    using S = typename Row<E, K>::S;
    constexpr int W = pack_width<E>;
    const int tile = blockIdx.y;
    Pack<S, W> of_gamma{}, of_beta{};
    const Range range(rows);
    for (size_t r = range.from; r < range.to; ++r) {
        const Row<E, K> row(rows, r, n, tile, x, tx, gy, t_gy);
        const auto in = row.input(x, tx);
        const auto cotangent = row.input(gy, t_gy);
        const Moments<E, K> of(row, in, eps);
        accumulate(of_gamma, row.map_cached(
                                 [&](int, const S &x, const S &gy) {
                                     return gy * (x - of.mean) * of.inverse;
                                 },
                                 in, cotangent));
        accumulate(of_beta, row.map_cached([](int, const S &gy) { return gy; }, cotangent));
    }
    const Row<E, K> row(rows, 0, n, tile, x, tx, gy, t_gy);
    put_partial<E, K>(partial, n, 0, 2, tile, of_gamma, row.wide);
    put_partial<E, K>(partial, n, 1, 2, tile, of_beta, row.wide);
}

#define LAYER_NORM(suffix, E, K)                                                                   \
    ENTRY(ROW_THREADS, layer_norm_value_##suffix##_k##K, const E *x, const E *tx,                  \
          const arithmetic<E> *gamma, const arithmetic<E> *t_gamma, const arithmetic<E> *beta,     \
          const arithmetic<E> *t_beta, E *y, E *ty, long long rows, int n, double eps) {           \
        layer_norm_value<E, K>(x, tx, gamma, t_gamma, beta, t_beta, y, ty, rows, n, eps);          \
    }                                                                                              \
    ENTRY(ROW_THREADS, layer_norm_vjp_input_##suffix##_k##K, const E *x, const E *tx,              \
          const arithmetic<E> *gamma, const arithmetic<E> *t_gamma, const E *gy, const E *t_gy,    \
          E *gx, E *t_gx, long long rows, int n, double eps) {                                     \
        layer_norm_vjp_input<E, K>(x, tx, gamma, t_gamma, gy, t_gy, gx, t_gx, rows, n, eps);       \
    }                                                                                              \
    ENTRY(ROW_THREADS, layer_norm_vjp_parameters_##suffix##_k##K, const E *x, const E *tx,         \
          const E *gy, const E *t_gy, arithmetic<E> *partial, long long rows, int n, double eps) { \
        layer_norm_vjp_parameters<E, K>(x, tx, gy, t_gy, partial, rows, n, eps);                   \
    }
FOR_EACH_DUAL(LAYER_NORM)
