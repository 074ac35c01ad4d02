// The scheduler declared in fibers.h, for x86-64 with the System V ABI.
#include "fibers.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <utility>
#include <vector>
#ifndef __x86_64__
#error "emu_switch is written for x86-64"
#endif

// Saves the callee-saved registers, stores the stack pointer in *from, and switches to the stack
// `to`.
extern "C" void emu_switch(void **from, void *to);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_switch,.-emu_switch
)");

namespace emu {

const Thread *current = nullptr;
Block block;

namespace {

constexpr size_t PAGE = 4096;
// Reserved address space; only touched pages use memory.
constexpr size_t STACK = 256 << 10, SHARED = 256 << 10;
constexpr int NONE = -1;

enum class State : unsigned char { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
    void *top;
    char *stack;
};
struct Slot {
    Thread thread;
    State state;
    int fiber;
};
struct Warp {
    unsigned arrived, wanted, predicates, ballot, alive;
    // Two buffers, because a lane may enter the next shuffle before others have read this one.
    alignas(8) char values[2][32][8];
    unsigned turn[32];
};

struct Scheduler {
    void *main = nullptr;
    std::vector<Fiber> fibers;
    std::vector<int> idle;
    std::vector<Slot> threads;
    std::vector<Warp> warps;
    std::vector<unsigned> order;
    unsigned count = 0, alive = 0, waiting = 0, now = 0, position = 0;
    Vote vote = NO_VOTE;
    int votes = 0, result = 0;
    Entry entry = nullptr;
    void *argument = nullptr;
    char *mapped = nullptr, *shared = nullptr;
    Failure failure = FINE;
    std::string error;
    bool progress = false;
};
Scheduler s;

Warp &warp_of(const Thread &thread) { return s.warps[thread.linear / 32]; }

void to_scheduler() { emu_switch(&s.fibers[s.threads[s.now].fiber].top, s.main); }

void release_block() {
    s.result = s.votes;
    s.votes = 0;
    s.waiting = 0;
    s.progress = true;
    for (Slot &slot : s.threads)
        if (slot.state == State::AT_BLOCK_BARRIER) slot.state = State::READY;
}

void release_warp(Warp &warp, unsigned base) {
    warp.ballot = warp.predicates;
    warp.arrived = 0;
    for (unsigned lane = 0; lane < 32 && base + lane < s.count; ++lane)
        if ((warp.wanted >> lane & 1) && s.threads[base + lane].state == State::AT_WARP_BARRIER)
            s.threads[base + lane].state = State::READY;
}

// A fiber runs thread after thread as long as they do not wait. Kernels without barriers never
// switch.
void fiber_main() {
    for (;;) {
        s.entry(s.argument);
        Slot &done = s.threads[s.now];
        const int fiber = std::exchange(done.fiber, NONE);
        done.state = State::DONE;
        --s.alive;
        s.progress = true;
        warp_of(done.thread).alive &= ~(1u << done.thread.linear % 32);
        // Finished threads count as arrived, as on every GPU since sm_70.
        if (s.alive > 0 && s.waiting == s.alive) release_block();
        unsigned next = s.position + 1;
        while (next < s.count && s.threads[s.order[next]].state != State::READY) ++next;
        if (next < s.count && s.threads[s.order[next]].fiber == NONE) {
            s.position = next;
            s.now = s.order[next];
            s.threads[s.now].fiber = fiber;
            current = &s.threads[s.now].thread;
            continue;
        }
        s.idle.push_back(fiber);
        emu_switch(&s.fibers[fiber].top, s.main);
        abort(); // an idle fiber is restarted, never resumed
    }
}

int new_fiber() {
    if (s.idle.empty()) {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            perror("emulator: no memory for a stack");
            abort();
        }
        mprotect(stack, PAGE, PROT_NONE);
        s.idle.push_back(int(s.fibers.size()));
        s.fibers.push_back({nullptr, static_cast<char *>(stack)});
    }
    const int fiber = s.idle.back();
    s.idle.pop_back();
    // Spreads the tops of stacks over cache sets.
    char *stack = s.fibers[fiber].stack + STACK - (fiber * 9 % 64) * 64;
    void **top = reinterpret_cast<void **>(stack);
    *--top = nullptr; // stack layout as after a call, without a return address
    *--top = reinterpret_cast<void *>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    s.fibers[fiber].top = top;
    return fiber;
}

void arrive_at_warp(unsigned mask, int predicate) {
    Slot &me = s.threads[s.now];
    Warp &warp = warp_of(me.thread);
    const unsigned bit = 1u << me.thread.linear % 32;
    if (!(mask & bit)) fail("a warp intrinsic's mask leaves out the calling lane", LAUNCH_FAILED);
    const unsigned wanted = mask & warp.alive;
    if (warp.arrived == 0) {
        warp.wanted = wanted;
        warp.predicates = 0;
    } else if (warp.wanted != wanted) {
        fail("lanes of one warp wait with different masks", LAUNCH_FAILED);
    }
    warp.arrived |= bit;
    if (predicate) warp.predicates |= bit;
    me.state = State::AT_WARP_BARRIER;
    s.progress = true;
    if ((warp.arrived & warp.wanted) == warp.wanted)
        release_warp(warp, me.thread.linear / 32 * 32);
    to_scheduler();
}

void make_order(unsigned order) {
    s.order.resize(s.count);
    for (unsigned i = 0; i < s.count; ++i) s.order[i] = order == 1 ? s.count - 1 - i : i;
    if (order < 2) return;
    uint64_t state = order * 0x9E3779B97F4A7C15ull + 1; // xorshift
    for (unsigned i = s.count - 1; i > 0; --i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::swap(s.order[i], s.order[unsigned(state >> 32) % (i + 1)]);
    }
}

void make_shared(size_t bytes) {
    if (!s.mapped) {
        void *mapped = mmap(nullptr, SHARED + 2 * PAGE, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) {
            perror("emulator: no shared memory");
            abort();
        }
        s.mapped = static_cast<char *>(mapped);
        mprotect(s.mapped + PAGE, SHARED, PROT_READ | PROT_WRITE);
    }
    s.shared = s.mapped + PAGE + SHARED - bytes;
}

void start_block(unsigned long index, size_t shared) {
    const dim3 &blocks = block.blocks, &threads = block.threads;
    block.index = {unsigned(index % blocks.x), unsigned(index / blocks.x % blocks.y),
                   unsigned(index / blocks.x / blocks.y)};
    // Fills shared memory with NaN, so that reads of unwritten memory show.
    memset(s.shared, 0xff, shared);
    s.alive = s.count;
    s.waiting = 0;
    s.votes = 0;
    for (Warp &warp : s.warps) warp = {};
    for (unsigned i = 0; i < s.count; ++i) {
        const uint3 at = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
        s.threads[i] = {{at, i}, State::READY, NONE};
        s.warps[i / 32].alive |= 1u << i % 32;
    }
}

void run_block() {
    while (s.alive > 0 && s.failure == FINE) {
        s.progress = false;
        for (s.position = 0; s.position < s.count && s.failure == FINE; ++s.position) {
            s.now = s.order[s.position];
            Slot &slot = s.threads[s.now];
            if (slot.state != State::READY) continue;
            if (slot.fiber == NONE) slot.fiber = new_fiber();
            current = &slot.thread;
            emu_switch(&s.main, s.fibers[slot.fiber].top);
        }
        if (!s.progress && s.failure == FINE) {
            s.error = "deadlock: a barrier is not reached by all threads that it waits for";
            s.failure = LAUNCH_FAILED;
        }
    }
}

} // namespace

void *dynamic_shared() { return s.shared; }
const std::string &last_error() { return s.error; }
void set_error(std::string what) { s.error = std::move(what); }

void fail(const char *what, Failure code) {
    const uint3 b = block.index, t = current->index;
    char where[96];
    snprintf(where, sizeof where, "block (%u,%u,%u) thread (%u,%u,%u): ", b.x, b.y, b.z, t.x, t.y,
             t.z);
    s.error = std::string(where) + what;
    s.failure = code;
    to_scheduler();
    abort(); // a failed launch is not resumed
}

bool without_barriers = false;

int block_barrier(Vote vote, int predicate) {
    if (without_barriers) return 0;
    if (s.waiting == 0) {
        s.vote = vote;
        s.votes = vote == ALL;
    } else if (s.vote != vote) {
        fail("threads wait at different kinds of __syncthreads", LAUNCH_FAILED);
    }
    if (vote == COUNT) s.votes += predicate != 0;
    if (vote == ALL) s.votes &= predicate != 0;
    if (vote == ANY) s.votes |= predicate != 0;
    s.threads[s.now].state = State::AT_BLOCK_BARRIER;
    s.progress = true;
    if (++s.waiting == s.alive) release_block();
    to_scheduler();
    return s.result;
}

void warp_exchange(unsigned mask, const void *in, void *out, size_t bytes, int source) {
    const Thread &me = s.threads[s.now].thread;
    Warp &warp = warp_of(me);
    const unsigned lane = me.linear % 32, turn = warp.turn[lane] ^= 1;
    memcpy(warp.values[turn][lane], in, bytes);
    arrive_at_warp(mask, 0);
    if (source < 0) return;
    if (!(mask >> source & 1)) fail("a shuffle reads a lane outside its mask", LAUNCH_FAILED);
    memcpy(out, warp.values[turn][source], bytes);
}

unsigned warp_vote(unsigned mask, int predicate) {
    arrive_at_warp(mask, predicate);
    return warp_of(s.threads[s.now].thread).ballot;
}

Failure run(dim3 blocks, dim3 threads, size_t shared, unsigned order, Entry entry,
            void *argument) {
    const size_t bytes = (shared + 15) / 16 * 16;
    const uint64_t each = uint64_t(threads.x) * threads.y * threads.z;
    if (each == 0 || each > 1024 || bytes > 48 << 10 || blocks.x == 0 || blocks.x > 0x7fffffff ||
        blocks.y == 0 || blocks.y > 65535 || blocks.z == 0 || blocks.z > 65535) {
        s.error = "invalid launch configuration";
        return INVALID_CONFIGURATION;
    }
    s.error.clear();
    s.failure = FINE;
    s.count = unsigned(each);
    s.entry = entry;
    s.argument = argument;
    s.threads.resize(s.count);
    s.warps.resize((s.count + 31) / 32);
    s.idle.clear(); // a failed launch leaves fibers behind
    for (size_t i = 0; i < s.fibers.size(); ++i) s.idle.push_back(int(i));
    make_shared(bytes);
    make_order(order);
    block.threads = threads;
    block.blocks = blocks;
    const unsigned long all = (unsigned long)blocks.x * blocks.y * blocks.z;
    for (unsigned long i = 0; i < all && s.failure == FINE; ++i) {
        start_block(order == 1 ? all - 1 - i : i, bytes);
        run_block();
    }
    return s.failure;
}

} // namespace emu
