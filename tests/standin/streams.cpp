// Streams and events as a partial order. Work is executed immediately, except copies from pinned
// memory, which are executed when something waits for them and no earlier. Every stream counts its
// steps and records how far every other stream was when it last waited for it (vector clocks). A
// stream may access memory only if it has waited for all other streams that accessed it.
#include "standin.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

namespace {

using memory::Address;
using Clock = std::vector<uint64_t>; // steps of each stream

std::recursive_mutex lock;

void join(Clock &to, const Clock &from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i)
        if (to[i] < from[i]) to[i] = from[i];
}

uint64_t at(const Clock &clock, size_t i) { return i < clock.size() ? clock[i] : 0; }

struct Copy {
    uint64_t step;
    Address to;
    const void *from;
    size_t bytes;
};

struct Stream {
    size_t id;
    bool computes; // allocates memory
    Clock seen;
    std::deque<Copy> waiting;
};

struct Event {
    Clock seen;
};

// The step of each stream's last use.
using Uses = std::map<size_t, uint64_t>;

struct Pinned {
    size_t bytes;
    Uses copied;
};

std::vector<Stream *> all;
Clock host;                // what the program itself has waited for
std::map<Address, Uses> used;
std::map<const char *, Pinned> pinned;
uint64_t copies, launches_meanwhile;

Stream &of(void *stream) {
    // The product never uses the default stream.
    if (!stream) fail_run("work on the default stream");
    return *static_cast<Stream *>(stream);
}

uint64_t step(Stream &stream) {
    join(stream.seen, host);
    if (stream.seen.size() <= stream.id) stream.seen.resize(stream.id + 1);
    return ++stream.seen[stream.id];
}

void require(const Uses &uses, const Clock &seen, size_t own, const char *what) {
    for (auto [id, step] : uses)
        if (id != own && at(seen, id) < step)
            fail_run("%s, while stream %zu still uses it", what, id);
}

// Executes the pending copies that this clock has waited for, except those of the given stream.
void catch_up(const Clock &seen, const Stream *own = nullptr) {
    for (Stream *stream : all)
        while (stream != own && !stream->waiting.empty()) {
            const Copy &copy = stream->waiting.front();
            if (copy.step > at(seen, stream->id)) break;
            memcpy(reinterpret_cast<void *>(copy.to), copy.from, copy.bytes);
            stream->waiting.pop_front();
        }
}

Pinned *around(const void *from) {
    const char *at = static_cast<const char *>(from);
    auto after = pinned.upper_bound(at);
    if (after == pinned.begin()) return nullptr;
    auto &[start, own] = *std::prev(after);
    return at < start + own.bytes ? &own : nullptr;
}

struct Report {
    ~Report() {
        if (getenv("STANDIN_VERBOSE"))
            fprintf(stderr,
                    "[standin] %lu copies beside the computing stream, %lu launches while one was "
                    "under way\n",
                    (unsigned long)copies, (unsigned long)launches_meanwhile);
    }
} report;

} // namespace

namespace streams {

void on_allocate(void *stream, Address at) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Stream &own = of(stream);
    own.computes = true;
    used[at] = {{own.id, step(own)}};
}

void on_access(void *stream, Address address, const char *what) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const Address start = memory::allocation_start(address);
    if (!start) return;
    Stream &own = of(stream);
    const uint64_t now = step(own);
    Uses &uses = used[start];
    require(uses, own.seen, own.id, what);
    uses[own.id] = now;
}

void on_free(void *stream, Address at) {
    if (!at) return;
    on_access(stream, at, "memory is given back");
    std::lock_guard<std::recursive_mutex> guard(lock);
    used.erase(at);
}

void on_launch(void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    for (Stream *other : all)
        if (other != stream && !other->waiting.empty()) {
            ++launches_meanwhile;
            return;
        }
}

bool is_asynchronous(void *stream, Address to, const void *from, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Pinned *source = around(from);
    if (!source) return false;
    Stream &own = of(stream);
    require(source->copied, host, size_t(-1), "memory that a copy reads was written anew");
    const uint64_t now = step(own);
    source->copied[own.id] = now;
    own.waiting.push_back({now, to, from, bytes});
    ++copies;
    return true;
}

} // namespace streams

extern "C" {

int cuStreamCreate(void **stream, unsigned) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    all.push_back(new Stream{all.size(), false, {}, {}});
    *stream = all.back();
    return 0;
}
int cuStreamDestroy_v2(void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!of(stream).waiting.empty()) fail_run("a stream is destroyed while work is pending");
    return 0;
}
int cuStreamSynchronize(void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Stream &own = of(stream);
    step(own);
    join(host, own.seen);
    catch_up(host);
    memory::on_synchronize();
    return 0;
}
int cuCtxSynchronize() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    for (Stream *stream : all) cuStreamSynchronize(stream);
    return 0;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Stream &own = of(stream);
    if (planted(own.computes ? "early use" : "early copy")) return 0;
    step(own);
    join(own.seen, static_cast<Event *>(event)->seen);
    // Other work is executed immediately, so what it waits for must be executed first.
    catch_up(own.seen, &own);
    return 0;
}
int cuStreamIsCapturing(void *, int *capturing) {
    *capturing = 0;
    return 0;
}
int cuEventCreate(void **event, unsigned) {
    *event = new Event;
    return 0;
}
int cuEventDestroy_v2(void *event) {
    delete static_cast<Event *>(event);
    return 0;
}
int cuEventRecord(void *event, void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Stream &own = of(stream);
    step(own);
    static_cast<Event *>(event)->seen = own.seen;
    return 0;
}
int cuEventSynchronize(void *event) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (planted("reuse")) return 0;
    join(host, static_cast<Event *>(event)->seen);
    catch_up(host);
    return 0;
}

int cuMemHostAlloc(void **out, size_t bytes, unsigned) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    static const char *limit = getenv("STANDIN_PINNED");
    if (limit && bytes > strtoull(limit, nullptr, 10)) return 2;
    *out = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(*out, 0xff, bytes);
    pinned[static_cast<char *>(*out)] = {bytes, {}};
    return 0;
}
int cuMemFreeHost(void *at) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = pinned.find(static_cast<char *>(at));
    if (found == pinned.end()) fail_run("release of pinned memory that was not allocated");
    require(found->second.copied, host, size_t(-1), "memory that a copy reads is given back");
    pinned.erase(found);
    free(at);
    return 0;
}

} // extern "C"
