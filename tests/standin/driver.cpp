// libcuda with one device: its memory, and launches that run the emulated kernels.
#include "cuda_on_cpu.h"
#include "standin.h"
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

namespace {

using memory::Address;

enum { FINE = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500 };

std::mutex one_launch_at_a_time;
int context; // its address is the context

// A number from the environment.
unsigned number(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    return text ? unsigned(atoi(text)) : otherwise;
}

int copy(void *stream, Address to, Address from, size_t bytes, bool to_device, bool from_device) {
    if (to_device) {
        memory::check(to, bytes, "a copy's target");
        streams::on_access(stream, to, "a copy's target is written");
    }
    if (from_device) {
        memory::check(from, bytes, "a copy's source");
        streams::on_access(stream, from, "a copy's source is read");
    } else if (streams::is_asynchronous(stream, to, reinterpret_cast<const void *>(from), bytes)) {
        return FINE;
    }
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
    return FINE;
}

Address host(const void *p) { return reinterpret_cast<Address>(p); }

} // namespace

extern "C" {

int cuStreamSynchronize(void *stream);

int cuInit(unsigned) { return planted("no device") ? NO_DEVICE : FINE; }
int cuDriverGetVersion(int *version) {
    *version = planted("old driver") ? 12040 : 13000;
    return FINE;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == NO_DEVICE       ? "no CUDA-capable device is detected"
            : error == OUT_OF_MEMORY ? "out of memory"
                                     : "failed";
    return FINE;
}
int cuGetErrorName(int, const char **name) {
    *name = "CUDA_ERROR";
    return FINE;
}
int cuDeviceGet(int *device, int) {
    *device = 0;
    return FINE;
}
int cuDeviceGetCount(int *count) {
    *count = 1;
    return FINE;
}
int cuDeviceGetAttribute(int *value, int attribute, int) {
    // CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED.
    *value = attribute == 115;
    return FINE;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    memory::free_and_total(free, total);
    return FINE;
}
int cuDevicePrimaryCtxRetain(void **out, int) {
    *out = &context;
    return FINE;
}
int cuDevicePrimaryCtxRelease_v2(int) { return FINE; }
int cuCtxGetCurrent(void **out) {
    *out = &context;
    return FINE;
}
int cuCtxSetCurrent(void *) { return FINE; }

int cuMemAllocAsync(Address *at, size_t bytes, void *stream) {
    const int failed = memory::allocate(bytes, at);
    if (!failed) streams::on_allocate(stream, *at);
    return failed;
}
int cuMemFreeAsync(Address at, void *stream) {
    streams::on_free(stream, at);
    memory::release(at);
    return FINE;
}
int cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &context;
    return FINE;
}
int cuMemPoolGetAttribute(void *, int attribute, void *value) {
    // CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, _USED_MEM_CURRENT, _USED_MEM_HIGH.
    if (attribute != 5 && attribute != 7 && attribute != 8) return INVALID_VALUE;
    *static_cast<uint64_t *>(value) = attribute == 5   ? memory::bytes_reserved()
                                      : attribute == 7 ? memory::bytes_now()
                                                       : memory::bytes_most();
    return FINE;
}
int cuMemPoolSetAttribute(void *, int attribute, void *value) {
    // CU_MEMPOOL_ATTR_RELEASE_THRESHOLD.
    if (attribute != 4) return INVALID_VALUE;
    memory::keep(*static_cast<uint64_t *>(value));
    return FINE;
}
int cuMemPoolTrimTo(void *, size_t bytes) {
    memory::trim(bytes);
    return FINE;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    return copy(stream, to, host(from), bytes, true, false);
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    // Copies into ordinary memory of the program return when the copy is complete.
    cuStreamSynchronize(stream);
    return copy(stream, host(to), from, bytes, false, true);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
    return copy(stream, to, from, bytes, true, true);
}
int cuMemsetD8Async(Address at, unsigned char value, size_t bytes, void *stream) {
    memory::check(at, bytes, "what is set");
    streams::on_access(stream, at, "memory is set");
    memset(reinterpret_cast<void *>(at), value, bytes);
    return FINE;
}

// A module is its PTX text, which is not used here: kernels are found by name.
int cuModuleLoadData(void **module, const void *) {
    *module = new char;
    return FINE;
}
int cuModuleUnload(void *module) {
    delete static_cast<char *>(module);
    return FINE;
}
int cuModuleGetFunction(const void **function, void *, const char *name) {
    *function = emu::find_kernel(name);
    return *function ? FINE : NOT_FOUND;
}

int cuLaunchKernel(const void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, void *stream, void **given,
                   void **extra) {
    const auto &kernel = *static_cast<const emu::Kernel *>(function);
    if (extra) fail_run("%s: a launch with `extra`", kernel.name);
    if (bx * by * bz > kernel.threads)
        fail_run("%s: %u threads per block, at most %u allowed", kernel.name, bx * by * bz, kernel.threads);
    static const unsigned order = number("STANDIN_ORDER", 0);
    static const bool late = planted("offset"), few = planted("grid");
    std::vector<void *> arguments(given, given + kernel.parameters);
    Address first;
    if (late && kernel.parameters > 0 && kernel.sizes[0] == 8) {
        memcpy(&first, arguments[0], 8);
        first += 4;
        arguments[0] = &first;
    }
    if (few && gx > 1) --gx;
    streams::on_launch(stream);
    // Structures contain addresses too.
    for (unsigned i = 0; i < kernel.parameters; ++i)
        for (size_t word = 0; word + 8 <= kernel.sizes[i]; word += 8) {
            Address used;
            memcpy(&used, static_cast<const char *>(arguments[i]) + word, 8);
            streams::on_access(stream, used, kernel.name);
        }
    std::lock_guard<std::mutex> guard(one_launch_at_a_time);
    emu::without_barriers = planted("barrier");
    const int failed = kernel.launch(kernel.kernel, {gx, gy, gz}, {bx, by, bz}, shared, order,
                                     arguments.data());
    if (failed) fail_run("%s: %s", kernel.name, emu::last_error().c_str());
    return FINE;
}

} // extern "C"
