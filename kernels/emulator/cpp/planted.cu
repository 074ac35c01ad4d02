// Kernels with one bug each, which the emulator must detect.
#include "entry.cuh"

// Reverses a block's numbers without waiting until all are written.
ENTRY(256, planted_missing_barrier, const float *x, float *y) {
    DYN_SHARED(float, row);
    row[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

// Half of the threads skip a barrier and wait at another kind.
ENTRY(256, planted_divergent_barrier, float *y) {
    if (threadIdx.x % 2 == 0)
        __syncthreads();
    else
        __syncthreads_count(1);
    y[threadIdx.x] = 1;
}

// A shuffle that not every lane of its mask reaches.
ENTRY(256, planted_partial_shuffle, float *y) {
    if (threadIdx.x % 32 < 16)
        y[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
    else
        __syncthreads();
}

// Reads unwritten shared memory.
ENTRY(256, planted_unwritten_shared, float *y) {
    DYN_SHARED(float, row);
    y[threadIdx.x] = row[threadIdx.x];
}

// Reads one number past the end of its input.
ENTRY(256, planted_overrun, const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
