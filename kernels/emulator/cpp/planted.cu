// Kernels with a mistake each, which the emulator has to show.
#include "entry.cuh"

// Reverses a block's numbers without waiting for the others to have written theirs.
ENTRY(256, planted_missing_barrier, const float *x, float *y) {
    DYN_SHARED(float, row);
    row[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

// A barrier that half of the threads pass by, to wait at another kind.
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

// Reads shared memory that nobody wrote.
ENTRY(256, planted_unwritten_shared, float *y) {
    DYN_SHARED(float, row);
    y[threadIdx.x] = row[threadIdx.x];
}

// Reads one number past its input.
ENTRY(256, planted_overrun, const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
