// A simulation of the CUDA driver and cuBLAS, for tests on machines without a GPU. Device memory is
// host memory that detects invalid accesses, launches run the emulated kernels of kernels/emulator,
// and matrix products are loops. It is never linked into a release: a test runs a build with
// feature `cuda` on it. Work is executed immediately and in submission order; streams.cpp checks
// whether it may be.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memory {

using Address = uint64_t;

// 0, or 2 (CUDA_ERROR_OUT_OF_MEMORY).
int allocate(size_t bytes, Address *out);
void release(Address at);
// Ends the process with message `what`, unless these bytes are inside one live allocation.
void check(Address at, size_t bytes, const char *what);
// The start of the live allocation that contains this address; 0 if there is none.
Address allocation_start(Address at);
// Allocated bytes: peak, current, and current including unused memory of the pool.
uint64_t bytes_most(), bytes_now(), bytes_reserved();
// Sets how many bytes the pool keeps when the program synchronises.
void keep(uint64_t bytes);
// Limits the unused memory of the pool to this many bytes.
void trim(uint64_t bytes);
// The program synchronises with the device.
void on_synchronize();
// Free and total bytes.
void free_and_total(size_t *free, size_t *total);

} // namespace memory

namespace streams {

using memory::Address;

// A stream allocates memory.
void on_allocate(void *stream, Address at);
// A stream reads or writes memory. Ends the process with message `what` if another stream may still
// use it.
void on_access(void *stream, Address at, const char *what);
// A stream frees memory.
void on_free(void *stream, Address at);
// A kernel is launched.
void on_launch(void *stream);
// Whether a copy is asynchronous. If so, it is executed when something waits for it.
bool is_asynchronous(void *stream, Address to, const void *from, size_t bytes);

} // namespace streams

// Ends the process with a message and code 86.
[[noreturn]] void fail_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The bug that STANDIN_PLANT requests, to test that it is detected: "grid" (one block too few),
// "offset" (the first operand starts 4 bytes late), "leak" (memory is never released), "overrun"
// (memory is 16 bytes too short), "freed" (some memory is released at once), "early use" (the
// computing stream waits for no copy), "early copy" (a copy waits for nothing), "reuse" (the
// program waits for no copy), "forgets" (the pool keeps nothing), "others" (memory reported as free
// is not available), "no device", "old driver".
bool planted(const char *mistake);
