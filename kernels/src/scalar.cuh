// The scalar type of kernels: a value with K tangents, as in scalar.rs.
//
// With Dual<A, 0> a kernel computes plain numbers. With Dual<A, K> the same code also computes, for
// each of K directions, the JVP of a value and the tangent of a VJP.
#pragma once
#include "entry.cuh"
#ifdef __CUDACC__
#include <cuda_bf16.h>
#endif

// A bf16 number: the upper half of an f32.
struct Bf16 {
    unsigned short bits;
};

// The type of computation for a storage type.
template <class E> struct Arithmetic {
    using type = E;
};
template <> struct Arithmetic<Bf16> {
    using type = float;
};
template <class E> using arithmetic = typename Arithmetic<E>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(Bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

__device__ __forceinline__ void narrow(float x, float &to) { to = x; }
__device__ __forceinline__ void narrow(double x, double &to) { to = x; }
// Rounds to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ void narrow(float x, Bf16 &to) {
#ifdef __CUDACC__
    to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
    const unsigned bits = __float_as_uint(x);
    to.bits = x == x ? (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16) : 0x7fff;
#endif
}

__device__ __forceinline__ float real_exp(float x) { return expf(x); }
__device__ __forceinline__ double real_exp(double x) { return exp(x); }
__device__ __forceinline__ float real_log(float x) { return logf(x); }
__device__ __forceinline__ double real_log(double x) { return log(x); }
__device__ __forceinline__ float real_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ double real_sqrt(double x) { return sqrt(x); }
__device__ __forceinline__ float real_erf(float x) { return erff(x); }
__device__ __forceinline__ double real_erf(double x) { return erf(x); }
__device__ __forceinline__ float real_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ double real_tanh(double x) { return tanh(x); }

// x + Σ εₖ ẋₖ with εₖ εⱼ = 0: part[0] is the value, part[k] tangent k.
template <class A, int K> struct Dual {
    A part[K + 1];

    __device__ __forceinline__ static Dual constant(A x) {
        Dual y;
        y.part[0] = x;
#pragma unroll
        for (int k = 1; k <= K; ++k) y.part[k] = A(0);
        return y;
    }
    // Chain rule for a function of one argument: value = f(x), slope = f'(x).
    __device__ __forceinline__ Dual chain(A value, A slope) const {
        Dual y;
        y.part[0] = value;
#pragma unroll
        for (int k = 1; k <= K; ++k) y.part[k] = part[k] * slope;
        return y;
    }
};

template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator+(const Dual<A, K> &a, const Dual<A, K> &b) {
    Dual<A, K> y;
#pragma unroll
    for (int k = 0; k <= K; ++k) y.part[k] = a.part[k] + b.part[k];
    return y;
}
template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator-(const Dual<A, K> &a, const Dual<A, K> &b) {
    Dual<A, K> y;
#pragma unroll
    for (int k = 0; k <= K; ++k) y.part[k] = a.part[k] - b.part[k];
    return y;
}
template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator*(const Dual<A, K> &a, const Dual<A, K> &b) {
    Dual<A, K> y;
    y.part[0] = a.part[0] * b.part[0];
#pragma unroll
    for (int k = 1; k <= K; ++k) y.part[k] = a.part[k] * b.part[0] + a.part[0] * b.part[k];
    return y;
}
// (a/b)' = (a' − (a/b) b')/b.
template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator/(const Dual<A, K> &a, const Dual<A, K> &b) {
    Dual<A, K> y;
    const A inverse = A(1) / b.part[0];
    y.part[0] = a.part[0] * inverse;
#pragma unroll
    for (int k = 1; k <= K; ++k) y.part[k] = (a.part[k] - y.part[0] * b.part[k]) * inverse;
    return y;
}
template <class A, int K> __device__ __forceinline__ Dual<A, K> operator-(const Dual<A, K> &a) {
    Dual<A, K> y;
#pragma unroll
    for (int k = 0; k <= K; ++k) y.part[k] = -a.part[k];
    return y;
}
template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator*(const Dual<A, K> &a, A factor) {
    Dual<A, K> y;
#pragma unroll
    for (int k = 0; k <= K; ++k) y.part[k] = a.part[k] * factor;
    return y;
}
template <class A, int K>
__device__ __forceinline__ Dual<A, K> operator+(const Dual<A, K> &a, A term) {
    Dual<A, K> y = a;
    y.part[0] += term;
    return y;
}

template <class A, int K> __device__ __forceinline__ Dual<A, K> exp_of(const Dual<A, K> &x) {
    const A y = real_exp(x.part[0]);
    return x.chain(y, y);
}
template <class A, int K> __device__ __forceinline__ Dual<A, K> log_of(const Dual<A, K> &x) {
    return x.chain(real_log(x.part[0]), A(1) / x.part[0]);
}
template <class A, int K> __device__ __forceinline__ Dual<A, K> sqrt_of(const Dual<A, K> &x) {
    const A y = real_sqrt(x.part[0]);
    return x.chain(y, A(0.5) / y);
}
// erf'(x) = 2/√π exp(−x²).
template <class A, int K> __device__ __forceinline__ Dual<A, K> erf_of(const Dual<A, K> &x) {
    const A v = x.part[0];
    const A slope = K == 0 ? A(0) : A(1.12837916709551257390) * real_exp(-v * v);
    return x.chain(real_erf(v), slope);
}
template <class A, int K> __device__ __forceinline__ Dual<A, K> tanh_of(const Dual<A, K> &x) {
    const A y = real_tanh(x.part[0]);
    return x.chain(y, A(1) - y * y);
}
// `y` where x > 0. Elsewhere the value of x, which is 0 or NaN, with zero tangents: for functions
// whose derivative at 0 counts as 0.
template <class A, int K>
__device__ __forceinline__ Dual<A, K> keep_positive(const Dual<A, K> &x, const Dual<A, K> &y) {
    return x.part[0] > A(0) ? y : Dual<A, K>::constant(x.part[0]);
}

// Number `at` with its tangents, which are `plane` numbers apart. A null tangent is zero.
template <class X, int K>
__device__ __forceinline__ Dual<arithmetic<X>, K> number(const X *value, const X *tangent,
                                                         size_t at, size_t plane) {
    using A = arithmetic<X>;
    Dual<A, K> x;
    x.part[0] = widen(value[at]);
#pragma unroll
    for (int k = 1; k <= K; ++k) x.part[k] = tangent ? widen(tangent[(k - 1) * plane + at]) : A(0);
    return x;
}
