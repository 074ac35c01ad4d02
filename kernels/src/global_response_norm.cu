// Global response normalisation over the tokens of an image, and its VJP. Mathematics and steps as
// in global_response_norm.rs.
//
// Launch: `token_squares` and `token_sums` take one block per image and 32 channels, with several
// rows of threads over the tokens. The scale n and the slope d are row kernels over (B, C)
// (`Planner::by_row`, `Planner::by_small_row`). value and vjp_input are elementwise over (B·T, C)
// (`Planner::by_element`).
#include "rows.cuh"

constexpr int TOKEN_THREADS = 512;
// `ELEMENT_THREADS` of the planner. Fewer threads than in other row kernels have more registers
// each, which kernels of five and six operands, and divisions of f64, need.
constexpr int ELEMENT_THREADS = 256;

// Σ over blockDim.y rows of threads, in order, returned to the first one. Scratch: a number per
// thread.
template <class A, int K>
__device__ __forceinline__ Dual<A, K> add_rows(const Dual<A, K> &x, A *scratch) {
    Dual<A, K> sum;
#pragma unroll
    for (int k = 0; k <= K; ++k) {
        __syncthreads(); // all threads have read the previous sum
        scratch[threadIdx.y * 32 + threadIdx.x] = x.part[k];
        __syncthreads();
        sum.part[k] = scratch[threadIdx.x];
        if (threadIdx.y == 0)
            for (int r = 1; r < int(blockDim.y); ++r)
                sum.part[k] = sum.part[k] + scratch[r * 32 + threadIdx.x];
    }
    return sum;
}

// Writes number `at` with its tangents, which are `plane` numbers apart.
template <class E, int K>
__device__ __forceinline__ void put_number(E *value, E *tangent, size_t at, size_t plane,
                                           const Dual<arithmetic<E>, K> &x) {
#pragma unroll
    for (int k = 0; k <= K; ++k)
        narrow(x.part[k], (k == 0 ? value : tangent + (k - 1) * plane)[at]);
}

// Per image and channel: squares = Σ x² over tokens, and with GY also s = Σ gy x.
template <class E, int K, bool GY>
__device__ __forceinline__ void token_sums(const E *x, const E *tx, const E *gy, const E *t_gy,
                                           E *squares, E *t_squares, E *s, E *ts,
                                           long long images, int tokens, int n) {
    using A = arithmetic<E>;
    using S = Dual<A, K>;
    DYN_SHARED(A, scratch);
    const int groups = (n + 31) / 32, c = int(blockIdx.x % groups) * 32 + threadIdx.x;
    const size_t image = blockIdx.x / groups, plane = size_t(images) * tokens * n;
    S of_squares = S::constant(A(0)), of_s = S::constant(A(0));
    if (c < n)
        for (int t = threadIdx.y; t < tokens; t += blockDim.y) {
            const size_t at = (image * tokens + t) * n + c;
            const S one = number<E, K>(x, tx, at, plane);
            of_squares = of_squares + one * one;
            if (GY) of_s = of_s + number<E, K>(gy, t_gy, at, plane) * one;
        }
    of_squares = add_rows(of_squares, scratch);
    if (GY) of_s = add_rows(of_s, scratch);
    if (threadIdx.y != 0 || c >= n) return;
    const size_t to = image * n + c, each = size_t(images) * n;
    put_number<E, K>(squares, t_squares, to, each, of_squares);
    if (GY) put_number<E, K>(s, ts, to, each, of_s);
}

// g from g². The derivative at 0 is 0.
template <class A, int K> __device__ __forceinline__ Dual<A, K> norm_of(const Dual<A, K> &square) {
    return keep_positive(square, sqrt_of(square));
}

// n = g/(mean(g) + ε).
template <class E, int K>
__device__ __forceinline__ void scale(const E *squares, const E *t_squares, E *y, E *ty,
                                      size_t rows, int n, double eps) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, squares, t_squares, y, ty);
    const auto in = row.input(squares, t_squares);
    const S total = row.sum([](int, const S &x) { return norm_of(x); }, in);
    const S inverse = S::constant(A(1)) / (total * (A(1) / A(n)) + A(eps));
    row.write(y, ty, [=](int, const S &x) { return norm_of(x) * inverse; }, in);
}

// d = (h/m − mean(h g)/m²)/g with h = γ s and m = mean(g) + ε; 0 where g = 0.
template <class E, int K>
__device__ __forceinline__ void
slope(const E *squares, const E *t_squares, const E *s, const E *ts, const arithmetic<E> *gamma,
      const arithmetic<E> *t_gamma, E *d, E *td, size_t rows, int n, double eps) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, -1, squares, t_squares, s, ts, gamma, t_gamma, d, td);
    const auto in = row.input(squares, t_squares);
    const auto sums = row.input(s, ts);
    const auto g = row.shared(gamma, t_gamma);
    const Two<S> totals = row.sum(
        [](int, const S &x, const S &s, const S &gamma) {
            const S norm = norm_of(x);
            return Two<S>{norm, gamma * s * norm};
        },
        in, sums, g);
    const A per_channel = A(1) / A(n);
    const S inverse = S::constant(A(1)) / (totals.first * per_channel + A(eps));
    const S mean = totals.second * per_channel * inverse;
    row.write(
        d, td,
        [=](int, const S &x, const S &s, const S &gamma) {
            const S norm = norm_of(x);
            return keep_positive(norm, (gamma * s - mean) * inverse / norm);
        },
        in, sums, g);
}

// y = x (1 + γ n) + β, where n has a row for every `tokens` rows.
template <class E, int K>
__device__ __forceinline__ void
value(const E *x, const E *tx, const E *scale, const E *t_scale, const arithmetic<E> *gamma,
      const arithmetic<E> *t_gamma, const arithmetic<E> *beta, const arithmetic<E> *t_beta, E *y,
      E *ty, size_t rows, int n, int tokens) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, scale, t_scale, gamma, t_gamma,
                        beta, t_beta, y, ty);
    const auto in = row.input(x, tx);
    const auto of_image = row.group(scale, t_scale, tokens);
    const auto g = row.shared(gamma, t_gamma);
    const auto b = row.shared(beta, t_beta);
    row.write(
        y, ty,
        [](int, const S &x, const S &scale, const S &g, const S &b) {
            return x * (g * scale + A(1)) + b;
        },
        in, of_image, g, b);
}

// gx = gy (1 + γ n) + d x.
template <class E, int K>
__device__ __forceinline__ void
vjp_input(const E *x, const E *tx, const E *gy, const E *t_gy, const E *scale, const E *t_scale,
          const E *d, const E *td, const arithmetic<E> *gamma, const arithmetic<E> *t_gamma, E *gx,
          E *t_gx, size_t rows, int n, int tokens) {
    if (own_row() >= rows) return;
    using A = arithmetic<E>;
    using S = typename Row<E, K>::S;
    const Row<E, K> row(rows, own_row(), n, blockIdx.y, x, tx, gy, t_gy, scale, t_scale, d, td,
                        gamma, t_gamma, gx, t_gx);
    const auto in = row.input(x, tx);
    const auto cotangent = row.input(gy, t_gy);
    const auto of_image = row.group(scale, t_scale, tokens);
    const auto of_norm = row.group(d, td, tokens);
    const auto g = row.shared(gamma, t_gamma);
    row.write(
        gx, t_gx,
        [](int, const S &x, const S &gy, const S &scale, const S &d, const S &g) {
            return gy * (g * scale + A(1)) + x * d;
        },
        in, cotangent, of_image, of_norm, g);
}

#define GLOBAL_RESPONSE_NORM(suffix, E, K)                                                         \
    ENTRY(TOKEN_THREADS, token_squares_##suffix##_k##K, const E *x, const E *tx, E *squares,       \
          E *t_squares, long long images, int tokens, int n) {                                     \
        token_sums<E, K, false>(x, tx, nullptr, nullptr, squares, t_squares, nullptr, nullptr,     \
                                images, tokens, n);                                                \
    }                                                                                              \
    ENTRY(TOKEN_THREADS, token_sums_##suffix##_k##K, const E *x, const E *tx, const E *gy,         \
          const E *t_gy, E *squares, E *t_squares, E *s, E *ts, long long images, int tokens,      \
          int n) {                                                                                 \
        token_sums<E, K, true>(x, tx, gy, t_gy, squares, t_squares, s, ts, images, tokens, n);     \
    }                                                                                              \
    ENTRY(ROW_THREADS, global_response_norm_scale_##suffix##_k##K, const E *squares,               \
          const E *t_squares, E *y, E *ty, long long rows, int n, double eps) {                    \
        scale<E, K>(squares, t_squares, y, ty, rows, n, eps);                                      \
    }                                                                                              \
    ENTRY(ELEMENT_THREADS, global_response_norm_slope_##suffix##_k##K, const E *squares,           \
          const E *t_squares, const E *s, const E *ts, const arithmetic<E> *gamma,                 \
          const arithmetic<E> *t_gamma, E *d, E *td, long long rows, int n, double eps) {          \
        slope<E, K>(squares, t_squares, s, ts, gamma, t_gamma, d, td, rows, n, eps);               \
    }                                                                                              \
    ENTRY(ELEMENT_THREADS, global_response_norm_value_##suffix##_k##K, const E *x, const E *tx,    \
          const E *scale, const E *t_scale, const arithmetic<E> *gamma,                            \
          const arithmetic<E> *t_gamma, const arithmetic<E> *beta, const arithmetic<E> *t_beta,    \
          E *y, E *ty, long long rows, int n, int tokens) {                                        \
        value<E, K>(x, tx, scale, t_scale, gamma, t_gamma, beta, t_beta, y, ty, rows, n, tokens);  \
    }                                                                                              \
    ENTRY(ELEMENT_THREADS, global_response_norm_vjp_input_##suffix##_k##K, const E *x,             \
          const E *tx,                                                                             \
          const E *gy, const E *t_gy, const E *scale, const E *t_scale, const E *d, const E *td,   \
          const arithmetic<E> *gamma, const arithmetic<E> *t_gamma, E *gx, E *t_gx,                \
          long long rows, int n, int tokens) {                                                     \
        vjp_input<E, K>(x, tx, gy, t_gy, scale, t_scale, d, td, gamma, t_gamma, gx, t_gx, rows, n, \
                        tokens);                                                                   \
    }
FOR_EACH_DUAL(GLOBAL_RESPONSE_NORM)
