// Declaration of kernels, for nvcc and for the CPU emulator in kernels/emulator.
#pragma once

#ifdef KERNELS_ON_CPU
#include "cuda_on_cpu.h"
#else
#define DYN_SHARED(T, name)                                                                        \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];                                \
    T *name = reinterpret_cast<T *>(dynamic_shared)
#define EMU_REGISTER(name, threads)
#endif

// An entry point with C linkage and at most THREADS threads per block.
#define ENTRY(THREADS, name, ...)                                                                  \
    extern "C" __global__ void name(__VA_ARGS__);                                                  \
    EMU_REGISTER(name, THREADS)                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(__VA_ARGS__)

// Instantiates differentiable kernels for their storage types and numbers of tangents: MAKE(suffix,
// type, K). bf16 supports only first derivatives, so it has no tangents. f64 exists for tests.
#define FOR_EACH_DUAL(MAKE)                                                                        \
    MAKE(f32, float, 0)                                                                            \
    MAKE(f32, float, 1)                                                                            \
    MAKE(f32, float, 2)                                                                            \
    MAKE(f64, double, 0)                                                                           \
    MAKE(f64, double, 1)                                                                           \
    MAKE(f64, double, 2)                                                                           \
    MAKE(bf16, Bf16, 0)
