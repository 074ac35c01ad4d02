// Runs the threads of a CUDA block on one CPU thread. Each CUDA thread is a fiber with its own
// stack, and fibers switch only at barriers and warp intrinsics. So launches are deterministic, and
// the order of threads between two barriers can be chosen. A correct kernel gives the same bits in
// every order.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emu {

// CUDA's error codes.
enum Failure {
    FINE = 0,
    INVALID_VALUE = 1,
    INVALID_CONFIGURATION = 9,
    NOT_FOUND = 500,
    ASSERT_FAILED = 710,
    LAUNCH_FAILED = 719,
};

// The running thread and its block.
struct Thread {
    uint3 index;
    unsigned linear;
};
struct Block {
    uint3 index;
    dim3 threads, blocks;
};
extern const Thread *current;
extern Block block;

// Dynamic shared memory of the running block. Filled with NaN before each block; it ends at an
// inaccessible page.
void *dynamic_shared();

enum Vote { NO_VOTE, COUNT, ALL, ANY };
// __syncthreads and its variants.
int block_barrier(Vote vote, int predicate);
// If set, block_barrier does not wait. Simulates a kernel with missing barriers.
extern bool without_barriers;
// A shuffle. With `source` < 0 the thread keeps its own value.
void warp_exchange(unsigned mask, const void *in, void *out, size_t bytes, int source);
// __ballot_sync.
unsigned warp_vote(unsigned mask, int predicate);
// Ends the launch with an error.
[[noreturn]] void fail(const char *what, Failure code);

// Order of threads and blocks: 0 ascending, 1 descending, otherwise shuffled with that seed.
using Entry = void (*)(void *);
Failure run(dim3 blocks, dim3 threads, size_t shared, unsigned order, Entry entry, void *argument);

// Error of the last launch.
const std::string &last_error();
void set_error(std::string what);

} // namespace emu
