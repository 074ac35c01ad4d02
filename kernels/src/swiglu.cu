// SwiGLU's gate, y = a σ(a) b, and its VJP. Mathematics as in swiglu.rs.
//
// Launch: elementwise (`Planner::by_element`).
#include "gelu.cuh"
#include "rows.cuh"

template <class E, int K>
__device__ __forceinline__ void swiglu_value(const E *a, const E *ta, const E *b, const E *tb,
                                             E *y, E *ty, size_t rows, int n) {
    if (own_row() >= rows) return;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, a, ta, b, tb, y, ty);
    const auto gate = row.input(a, ta);
    const auto up = row.input(b, tb);
    row.write(
        y, ty, [](int, const S &a, const S &b) { return a * sigmoid_of(a) * b; }, gate, up);
}

// ga = gy b σ(a)(1 + a (1 − σ(a))), gb = gy a σ(a).
template <class E, int K>
__device__ __forceinline__ void swiglu_vjp(const E *a, const E *ta, const E *b, const E *tb,
                                           const E *gy, const E *t_gy, E *ga, E *t_ga, E *gb,
                                           E *t_gb, size_t rows, int n) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, a, ta, b, tb, gy, t_gy, ga, t_ga, gb,
                        t_gb);
    const auto gate = row.input(a, ta);
    const auto up = row.input(b, tb);
    const auto cotangent = row.input(gy, t_gy);
    row.write(
        ga, t_ga,
        [](int, const S &a, const S &b, const S &gy) {
            const S s = sigmoid_of(a);
            return gy * b * s * (a * (-s + A(1)) + A(1));
        },
        gate, up, cotangent);
    row.write(
        gb, t_gb, [](int, const S &a, const S &gy) { return gy * a * sigmoid_of(a); }, gate,
        cotangent);
}

#define SWIGLU(suffix, E, K)                                                                       \
    ENTRY(ROW_THREADS, swiglu_value_##suffix##_k##K, const E *a, const E *ta, const E *b,          \
          const E *tb, E *y, E *ty, long long rows, int n) {                                       \
        swiglu_value<E, K>(a, ta, b, tb, y, ty, rows, n);                                          \
    }                                                                                              \
    ENTRY(ROW_THREADS, swiglu_vjp_##suffix##_k##K, const E *a, const E *ta, const E *b,            \
          const E *tb, const E *gy, const E *t_gy, E *ga, E *t_ga, E *gb, E *t_gb, long long rows, \
          int n) {                                                                                 \
        swiglu_vjp<E, K>(a, ta, b, tb, gy, t_gy, ga, t_ga, gb, t_gb, rows, n);                     \
    }
FOR_EACH_DUAL(SWIGLU)
