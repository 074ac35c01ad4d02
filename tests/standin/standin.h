// A stand-in for the CUDA driver and cuBLAS, for tests on machines without a GPU: device memory is
// host memory in which mistakes show, launches run the emulated kernels of kernels/emulator, and
// products are loops. Never linked into what is shipped: a test runs a build with feature `cuda` on
// it. Work happens at once and in the order it was sent; whether it may is checked (streams.cpp).
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
// The start of the live allocation that this lies in; 0 if there is none.
Address start_of(Address at);
// Bytes that are allocated: most at once so far, now, and with what the pool keeps beside them.
uint64_t bytes_most(), bytes_now(), bytes_reserved();
// How many bytes the pool keeps when somebody waits for the device.
void keep(uint64_t bytes);
// The pool keeps no more than this, but for what is allocated.
void trim(uint64_t bytes);
// Somebody waits for the device.
void settle();
// What is free, of how much.
void room(size_t *free, size_t *total);

} // namespace memory

namespace streams {

using memory::Address;

// A stream asked for memory.
void made(void *stream, Address at);
// A stream reads or writes memory: ends the process, telling `what`, if another may still use it.
void touch(void *stream, Address at, const char *what);
// A stream gives memory back.
void gone(void *stream, Address at);
// A kernel is launched.
void launched(void *stream);
// Whether a copy from there goes on while the program does: then it is done when it is waited for.
bool later(void *stream, Address to, const void *from, size_t bytes);

} // namespace streams

// Ends the process with a message and code 86.
[[noreturn]] void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The mistake that STANDIN_PLANT asks for, to see that it shows: "grid" (a block too few), "offset"
// (the first operand begins 4 bytes late), "leak" (memory is never released), "overrun" (memory is
// 16 bytes too short), "freed" (some is released at once), "early use" (what computes waits for no
// copy), "early copy" (a copy waits for nothing), "reuse" (the program waits for no copy), "forgets"
// (the pool keeps nothing), "others" (what is told to be free is not to be had), "no device", "old
// driver".
bool planted(const char *mistake);
