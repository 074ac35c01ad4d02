// Runs the threads of a CUDA block on one thread of the CPU: each is a fiber with a stack of its
// own, and fibers switch only at barriers and warp intrinsics. A launch is therefore deterministic,
// and the order in which threads go between two barriers can be chosen: a kernel that is right
// gives the same bits in every order.
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

// CUDA's numbers for what can go wrong.
enum Failure {
    FINE = 0,
    INVALID_VALUE = 1,
    INVALID_CONFIGURATION = 9,
    NOT_FOUND = 500,
    ASSERT_FAILED = 710,
    LAUNCH_FAILED = 719,
};

// The thread that runs now, and its block.
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

// Dynamic shared memory of the running block: filled with NaN before each block, its end at a page
// that must not be touched.
void *dynamic_shared();

enum Vote { NO_VOTE, COUNT, ALL, ANY };
// __syncthreads and its kin.
int block_barrier(Vote vote, int predicate);
// Set, block_barrier holds nobody up: a kernel that forgets its barriers, on purpose.
extern bool without_barriers;
// A shuffle: `source` < 0 keeps the thread's own value.
void warp_exchange(unsigned mask, const void *in, void *out, size_t bytes, int source);
// __ballot_sync.
unsigned warp_vote(unsigned mask, int predicate);
// Ends the launch.
[[noreturn]] void fail(const char *what, Failure code);

// In which order threads and blocks go: 0 up, 1 down, else shuffled by that seed.
using Entry = void (*)(void *);
Failure run(dim3 blocks, dim3 threads, size_t shared, unsigned order, Entry entry, void *argument);

// What the last launch failed of.
const std::string &last_error();
void set_error(std::string what);

} // namespace emu
