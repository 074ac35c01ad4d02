// A stand-in for the CUDA driver and cuBLAS, for tests on machines without a GPU: device memory is
// host memory in which mistakes show, launches run the emulated kernels of kernels/emulator, and
// products are loops. Never linked into what is shipped: a test runs a build with feature `cuda` on
// it. Everything happens at once and in order, so missing synchronisation does not show.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memory {

using Address = uint64_t;

// 0, or 2 (CUDA_ERROR_OUT_OF_MEMORY).
int allocate(size_t bytes, Address *out);
void release(Address at);
// Ends the process, telling `what`, unless these bytes lie in one live allocation.
void check(Address at, size_t bytes, const char *what);
// Most bytes that were allocated at once.
uint64_t bytes_most();
// What is free, of how much.
void room(size_t *free, size_t *total);

} // namespace memory

// Ends the process with a message and code 86.
[[noreturn]] void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The mistake that STANDIN_PLANT asks for, to see that it shows: "grid" (a block too few), "offset"
// (the first operand begins 4 bytes late), "leak" (memory is never released), "overrun" (memory is
// 16 bytes too short), "freed" (some is released at once), "no device", "old driver".
bool planted(const char *mistake);
