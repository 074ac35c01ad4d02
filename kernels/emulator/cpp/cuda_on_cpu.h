// Lets a plain C++17 compiler compile CUDA C++. Mathematical functions are those of libm; a GPU
// differs from them by units in the last place. Not supported: wmma, cp.async, inline PTX, half
// precision.
#pragma once
#include "fibers.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <math.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one after the other, so static memory serves as shared memory.
#define __shared__ static
#define __restrict__ __restrict
// `extern __shared__ T name[]` is not valid C++; kernels use this macro instead.
#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(emu::dynamic_shared())

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emu {

// A kernel: name, maximum threads per block, number of parameters and their sizes in bytes.
struct Kernel {
    const char *name;
    unsigned threads, parameters;
    const unsigned *sizes;
    void (*kernel)();
    // `arguments` points to one pointer per parameter, as in cuLaunchKernel.
    Failure (*launch)(void (*kernel)(), dim3 blocks, dim3 threads, size_t shared, unsigned order,
                      void **arguments);
};
void add_kernel(const Kernel &kernel);
const Kernel *find_kernel(const char *name);

template <class... P> struct Typed {
    static constexpr unsigned sizes[sizeof...(P) + 1] = {unsigned(sizeof(P))..., 0};
    void (*kernel)(P...);
    void **arguments;

    template <size_t... I> void call(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<P> *>(arguments[I])...);
    }
    static void thread(void *self) {
        static_cast<Typed *>(self)->call(std::index_sequence_for<P...>{});
    }
    static Failure launch(void (*kernel)(), dim3 blocks, dim3 threads, size_t shared,
                          unsigned order, void **arguments) {
        Typed typed{reinterpret_cast<void (*)(P...)>(kernel), arguments};
        return run(blocks, threads, shared, order, &thread, &typed);
    }
};

struct Registration {
    template <class... P>
    Registration(const char *name, unsigned threads, void (*kernel)(P...)) {
        add_kernel({name, threads, unsigned(sizeof...(P)), Typed<P...>::sizes,
                    reinterpret_cast<void (*)()>(kernel), &Typed<P...>::launch});
    }
};

template <class T> inline T shuffle(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle takes 4 or 8 bytes");
    T out = value;
    warp_exchange(mask, &value, &out, sizeof(T), source);
    return out;
}

} // namespace emu

#define EMU_REGISTER(name, threads) static emu::Registration registration_##name(#name, threads, name);

#define threadIdx (emu::current->index)
#define blockIdx (emu::block.index)
#define blockDim (emu::block.threads)
#define gridDim (emu::block.blocks)

inline void __syncthreads() { emu::block_barrier(emu::NO_VOTE, 0); }
inline int __syncthreads_count(int p) { return emu::block_barrier(emu::COUNT, p); }
inline int __syncthreads_and(int p) { return emu::block_barrier(emu::ALL, p); }
inline int __syncthreads_or(int p) { return emu::block_barrier(emu::ANY, p); }
inline void __syncwarp(unsigned mask = ~0u) { emu::warp_vote(mask, 0); }
inline unsigned __ballot_sync(unsigned mask, int p) { return emu::warp_vote(mask, p); }
inline int emu_lane() { return int(emu::current->linear % 32); }
template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    return emu::shuffle(mask, v, (emu_lane() & ~(width - 1)) + (source & (width - 1)));
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    const int lane = emu_lane(), source = lane ^ bits;
    const bool outside = (source & ~(width - 1)) > (lane & ~(width - 1));
    return emu::shuffle(mask, v, outside ? -1 : source);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const int lane = emu_lane();
    return emu::shuffle(mask, v, (lane & (width - 1)) + int(by) < width ? lane + int(by) : -1);
}

inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
using std::max;
using std::min;
