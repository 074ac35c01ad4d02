// Conversion of the storage type: y = x as bf16 or as f32, rounded to nearest, ties to even.
//
// Launch: eight numbers per thread (`Planner::by_unit`).
#include "rows.cuh"

constexpr int CAST_THREADS = 256;
constexpr int CAST_WIDTH = 8;

template <class From, class To>
__device__ __forceinline__ void cast(const From *x, To *y, long long numbers) {
    const long long c = (long long)(size_t(blockIdx.x) * blockDim.x + threadIdx.x) * CAST_WIDTH;
    if (c + CAST_WIDTH <= numbers && aligned(x) && aligned(y)) {
        alignas(16) From from[CAST_WIDTH];
        alignas(16) To to[CAST_WIDTH];
        load_wide<CAST_WIDTH>(x + c, from);
#pragma unroll
        for (int j = 0; j < CAST_WIDTH; ++j) narrow(widen(from[j]), to[j]);
        store_wide<CAST_WIDTH>(y + c, to);
    } else {
        for (long long i = c; i < min(numbers, c + CAST_WIDTH); ++i) narrow(widen(x[i]), y[i]);
    }
}

ENTRY(CAST_THREADS, cast_f32_bf16, const float *x, Bf16 *y, long long numbers) {
    cast(x, y, numbers);
}
ENTRY(CAST_THREADS, cast_bf16_f32, const Bf16 *x, float *y, long long numbers) {
    cast(x, y, numbers);
}
