// GELU and its derivative. Mathematics as in gelu.rs.
#pragma once
#include "scalar.cuh"

template <class A> struct GeluConstants {
    static constexpr A root_half = A(0.70710678118654752440);
    static constexpr A density = A(0.39894228040143267794); // 1/√(2π)
    static constexpr A slope = A(0.79788456080286535588);   // √(2/π)
    static constexpr A cubic = A(0.044715);
    static constexpr A quick = A(1.702);
};

// x Φ(x), exact.
struct Exact {
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> value(const Dual<A, K> &x) {
        using C = GeluConstants<A>;
        return x * (erf_of(x * C::root_half) * A(0.5) + A(0.5));
    }
    // Φ(x) + x φ(x).
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> slope(const Dual<A, K> &x) {
        using C = GeluConstants<A>;
        const Dual<A, K> u = x * C::root_half;
        return erf_of(u) * A(0.5) + A(0.5) + x * exp_of(-(u * u)) * C::density;
    }
};

// The tanh approximation.
struct Tanh {
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> value(const Dual<A, K> &x) {
        using C = GeluConstants<A>;
        const Dual<A, K> t = tanh_of((x + x * x * x * C::cubic) * C::slope);
        return x * (t * A(0.5) + A(0.5));
    }
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> slope(const Dual<A, K> &x) {
        using C = GeluConstants<A>;
        const Dual<A, K> square = x * x;
        const Dual<A, K> t = tanh_of((x + x * square * C::cubic) * C::slope);
        const Dual<A, K> inner = (square * (A(3) * C::cubic) + A(1)) * C::slope;
        return t * A(0.5) + A(0.5) + x * (-(t * t) + A(1)) * inner * A(0.5);
    }
};

// σ(x), by the tanh, which no x makes overflow.
template <class A, int K>
__device__ __forceinline__ Dual<A, K> sigmoid_of(const Dual<A, K> &x) {
    return tanh_of(x * A(0.5)) * A(0.5) + A(0.5);
}

// x σ(1.702 x).
struct Quick {
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> value(const Dual<A, K> &x) {
        return x * sigmoid_of(x * GeluConstants<A>::quick);
    }
    template <class A, int K>
    __device__ __forceinline__ static Dual<A, K> slope(const Dual<A, K> &x) {
        using C = GeluConstants<A>;
        const Dual<A, K> s = sigmoid_of(x * C::quick);
        return s + x * s * (-s + A(1)) * C::quick;
    }
};
