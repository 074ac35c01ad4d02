// Device memory. Every allocation ends at an inaccessible page, holds NaN until it is written, and
// has an address that is never reused.
#include "standin.h"
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr size_t PAGE = 4096, ARENA = size_t(1) << 43;
// Fill byte around an allocation on its own pages.
constexpr unsigned char AROUND = 0xa5;

struct Allocation {
    uint64_t from, mapped, at, bytes;
};

std::recursive_mutex lock;
std::map<uint64_t, Allocation> live; // by first page
uint64_t arena = 0, next_page = 0, now = 0, most = 0, count = 0;
// Bytes of device memory in the pool, how much of it the pool keeps at a synchronisation, and how
// often it grew.
uint64_t reserved = 0, threshold = 0, grown = 0;

const Allocation *around(uint64_t at) {
    auto after = live.upper_bound(at);
    return after == live.begin() ? nullptr : &std::prev(after)->second;
}

void on_fault(int, siginfo_t *info, void *) {
    const uint64_t at = reinterpret_cast<uint64_t>(info->si_addr);
    if (!arena || at < arena || at >= arena + ARENA)
        fail_run("access to memory that is not device memory: %#lx", (unsigned long)at);
    const Allocation *near = around(at);
    const bool past = near && at >= near->at + near->bytes;
    fail_run("access to device memory %s: %#lx",
          past ? "past an allocation's end, or freed" : "where none is", (unsigned long)at);
}

bool filled(uint64_t from, uint64_t to) {
    for (; from < to; ++from)
        if (*reinterpret_cast<unsigned char *>(from) != AROUND) return false;
    return true;
}

void start() {
    if (arena) return;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *mapped = mmap(nullptr, ARENA, PROT_NONE, flags, -1, 0);
    if (mapped == MAP_FAILED) fail_run("no address space");
    arena = next_page = reinterpret_cast<uint64_t>(mapped);
    // Faults also occur on the small stacks of emulated threads.
    static char stack[1 << 16];
    stack_t own{};
    own.ss_sp = stack;
    own.ss_size = sizeof stack;
    sigaltstack(&own, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

// Destroyed when the library is unloaded, after everything of the program has ended.
struct Report {
    ~Report() {
        if (getenv("STANDIN_VERBOSE"))
            fprintf(stderr,
                    "[standin] %lu allocations, most at once %lu bytes, %lu times the pool grew\n",
                    (unsigned long)count, (unsigned long)most, (unsigned long)grown);
        // Statics keep memory until the end: weights, and the library's own workspace. All work is
        // over, so nothing else may be allocated.
        const char *kept = getenv("STANDIN_KEPT");
        if (kept && now > strtoull(kept, nullptr, 10))
            fail_run("leak: %lu allocations, %lu bytes are live at the end",
                  (unsigned long)live.size(), (unsigned long)now);
    }
} report;

} // namespace

void fail_run(const char *format, ...) {
    char text[512] = "[standin] ";
    va_list arguments;
    va_start(arguments, format);
    int length = 10 + vsnprintf(text + 10, sizeof text - 12, format, arguments);
    va_end(arguments);
    if (length > int(sizeof text) - 2) length = int(sizeof text) - 2;
    text[length++] = '\n';
    if (write(2, text, size_t(length)) < 0) _exit(87);
    _exit(86);
}

bool planted(const char *mistake) {
    const char *asked = getenv("STANDIN_PLANT");
    return asked && strcmp(asked, mistake) == 0;
}

namespace memory {

int allocate(size_t bytes, Address *out) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    start();
    if (bytes == 0) fail_run("an allocation of 0 bytes");
    static const char *limit = getenv("STANDIN_BYTES");
    if (limit && now + bytes > strtoull(limit, nullptr, 10)) return 2;
    // Kernels access 16 bytes at a time.
    size_t size = (bytes + 15) / 16 * 16;
    if (planted("overrun") && size > 1024) size -= 16;
    const size_t mapped = (size + PAGE - 1) / PAGE * PAGE;
    const uint64_t from = next_page;
    next_page += mapped + PAGE;
    if (next_page > arena + ARENA) return 2;
    if (mprotect(reinterpret_cast<void *>(from), mapped, PROT_READ | PROT_WRITE)) return 2;
    const uint64_t at = from + mapped - size;
    memset(reinterpret_cast<void *>(from), AROUND, mapped);
    memset(reinterpret_cast<void *>(at), 0xff, bytes < size ? bytes : size);
    live[from] = {from, mapped, at, bytes};
    now += bytes;
    if (now > most) most = now;
    if (now > reserved) {
        reserved = now;
        ++grown;
    }
    ++count;
    *out = at;
    if (planted("freed") && count % 100 == 0) release(at);
    return 0;
}

void release(Address at) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (at == 0) return;
    const Allocation *found = around(at);
    if (!found || found->at != at)
        fail_run("release of an address that is not a live allocation: %#lx", (unsigned long)at);
    const Allocation own = *found;
    const uint64_t end = own.from + own.mapped;
    const uint64_t past = own.at + own.bytes;
    if (!filled(own.from, own.at) || !filled(past < end ? past : end, end))
        fail_run("an allocation of %lu bytes was written outside", (unsigned long)own.bytes);
    if (planted("leak")) return;
    live.erase(own.from);
    now -= own.bytes;
    madvise(reinterpret_cast<void *>(own.from), own.mapped, MADV_DONTNEED);
    mprotect(reinterpret_cast<void *>(own.from), own.mapped, PROT_NONE);
}

void check(Address at, size_t bytes, const char *what) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const Allocation *found = around(at);
    if (bytes == 0) return;
    if (!found || at < found->at || at + bytes > found->at + found->bytes)
        fail_run("%s: %lu bytes at %#lx are not in one live allocation", what,
              (unsigned long)bytes, (unsigned long)at);
}

Address allocation_start(Address at) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const Allocation *found = around(at);
    return found && at >= found->at && at < found->at + found->bytes ? found->at : 0;
}

uint64_t bytes_most() { return most; }
uint64_t bytes_now() { return now; }
uint64_t bytes_reserved() { return reserved; }

void keep(uint64_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!planted("forgets")) threshold = bytes;
}

void trim(uint64_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const uint64_t stays = bytes > now ? bytes : now;
    if (reserved > stays) reserved = stays;
}

void on_synchronize() { trim(threshold); }

void free_and_total(size_t *free, size_t *total) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const char *limit = getenv("STANDIN_BYTES");
    *total = size_t(16) << 30;
    // Memory above the limit belongs to other programs: from the start, or from the moment it is
    // requested.
    const bool now_already = limit && !planted("others");
    const uint64_t most_now = now_already ? strtoull(limit, nullptr, 10) : *total;
    *free = most_now > reserved ? most_now - reserved : 0;
}

} // namespace memory
