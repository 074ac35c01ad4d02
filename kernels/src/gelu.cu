// y = gelu(x) in the exact, the tanh and the logistic form, y = gelu(x + b) with a fused bias, and their VJPs.
// Fusing the bias saves one pass over the activations.
//
// Launch: gelu and bias_gelu_value elementwise (`Planner::by_element`). bias_gelu_vjp is a column
// sum (`Planner::by_tile`, finished by `sum_partials`).
#include "gelu.cuh"
#include "rows.cuh"

template <class Form, class E, int K>
__device__ __forceinline__ void gelu_value(const E *x, const E *tx, E *y, E *ty, size_t rows,
                                           int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, y, ty);
    const auto in = row.input(x, tx);
    row.write(y, ty, [](int, const S &x) { return Form::value(x); }, in);
}

// gx = gy (Φ(x) + x φ(x)).
template <class Form, class E, int K>
__device__ __forceinline__ void gelu_vjp(const E *x, const E *tx, const E *gy, const E *t_gy,
                                         E *gx, E *t_gx, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, gy, t_gy, gx, t_gx);
    const auto in = row.input(x, tx);
    const auto cotangent = row.input(gy, t_gy);
    row.write(
        gx, t_gx, [](int, const S &x, const S &gy) { return gy * Form::slope(x); }, in, cotangent);
}

// y = gelu(x + b).
template <class Form, class E, int K>
__device__ __forceinline__ void
bias_gelu_value(const E *x, const E *tx, const arithmetic<E> *b, const arithmetic<E> *tb, E *y,
                E *ty, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, b, tb, y, ty);
    const auto in = row.input(x, tx);
    const auto bias = row.shared(b, tb);
    row.write(
        y, ty, [](int, const S &x, const S &b) { return Form::value(x + b); }, in, bias);
}

// gx = gy gelu'(x + b), and gb = Σ gx over rows. The sum uses gx before it is rounded to the
// storage type.
template <class Form, class E, int K>
__device__ __forceinline__ void
bias_gelu_vjp(const E *x, const E *tx, const arithmetic<E> *b, const arithmetic<E> *tb,
              const E *gy, const E *t_gy, E *gx, E *t_gx, arithmetic<E> *partial, size_t rows,
              int n) {
    using S = typename Row<E, K>::S;
    const int tile = blockIdx.y;
    Pack<S, pack_width<E>> sums{};
    const Row<E, K> any(rows, 0, n, tile, x, tx, b, tb, gy, t_gy, gx, t_gx);
    const auto bias = any.shared(b, tb);
    const Range range(rows);
    for (size_t r = range.from; r < range.to; ++r) {
        const Row<E, K> row(rows, r, n, tile, x, tx, b, tb, gy, t_gy, gx, t_gx);
        const auto in = row.input(x, tx);
        const auto cotangent = row.input(gy, t_gy);
        const auto terms = row.map_cached(
            [](int, const S &x, const S &b, const S &gy) { return gy * Form::slope(x + b); }, in,
            bias, cotangent);
        row.store(gx, t_gx, tile, terms);
        accumulate(sums, terms);
    }
    put_partial<E, K>(partial, n, 0, 1, tile, sums, any.wide);
}

#define GELU_FORM(name, Form, suffix, E, K)                                                        \
    ENTRY(ROW_THREADS, name##_value_##suffix##_k##K, const E *x, const E *tx, E *y, E *ty,         \
          long long rows, int n) {                                                                 \
        gelu_value<Form, E, K>(x, tx, y, ty, rows, n);                                             \
    }                                                                                              \
    ENTRY(ROW_THREADS, name##_vjp_##suffix##_k##K, const E *x, const E *tx, const E *gy,           \
          const E *t_gy, E *gx, E *t_gx, long long rows, int n) {                                  \
        gelu_vjp<Form, E, K>(x, tx, gy, t_gy, gx, t_gx, rows, n);                                  \
    }                                                                                              \
    ENTRY(ROW_THREADS, bias_##name##_value_##suffix##_k##K, const E *x, const E *tx,               \
          const arithmetic<E> *b, const arithmetic<E> *tb, E *y, E *ty, long long rows, int n) {   \
        bias_gelu_value<Form, E, K>(x, tx, b, tb, y, ty, rows, n);                                 \
    }                                                                                              \
    ENTRY(ROW_THREADS, bias_##name##_vjp_##suffix##_k##K, const E *x, const E *tx,                 \
          const arithmetic<E> *b, const arithmetic<E> *tb, const E *gy, const E *t_gy, E *gx,      \
          E *t_gx, arithmetic<E> *partial, long long rows, int n) {                                \
        bias_gelu_vjp<Form, E, K>(x, tx, b, tb, gy, t_gy, gx, t_gx, partial, rows, n);             \
    }
#define GELU(suffix, E, K)                                                                         \
    GELU_FORM(gelu, Exact, suffix, E, K)                                                           \
    GELU_FORM(gelu_tanh, Tanh, suffix, E, K) GELU_FORM(gelu_quick, Quick, suffix, E, K)
FOR_EACH_DUAL(GELU)
