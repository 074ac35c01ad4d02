// The registry of kernels, and a C interface to launch them by name.
#include "cuda_on_cpu.h"
#include <map>

namespace emu {

namespace {
// Created at first use, because kernels register during static initialisation.
std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}
} // namespace

void add_kernel(const Kernel &kernel) { kernels()[kernel.name] = kernel; }

const Kernel *find_kernel(const char *name) {
    const auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

} // namespace emu

// Launches kernel `name` with `count` arguments, given as pointers and sizes. Returns 0 or CUDA's
// error code; emu_error returns the text.
extern "C" int emu_launch(const char *name, const unsigned *blocks, const unsigned *threads,
                          size_t shared, unsigned order, void **arguments, const unsigned *sizes,
                          unsigned count) {
    const emu::Kernel *kernel = emu::find_kernel(name);
    if (!kernel) {
        emu::set_error("no such kernel");
        return emu::NOT_FOUND;
    }
    if (count != kernel->parameters) {
        emu::set_error("the kernel takes " + std::to_string(kernel->parameters) + " arguments, not " +
                       std::to_string(count));
        return emu::INVALID_VALUE;
    }
    for (unsigned i = 0; i < count; ++i)
        if (sizes[i] != kernel->sizes[i]) {
            emu::set_error("argument " + std::to_string(i) + " has " +
                           std::to_string(kernel->sizes[i]) + " bytes, not " +
                           std::to_string(sizes[i]));
            return emu::INVALID_VALUE;
        }
    if (threads[0] * threads[1] * threads[2] > kernel->threads) {
        emu::set_error("more than " + std::to_string(kernel->threads) + " threads per block");
        return emu::INVALID_CONFIGURATION;
    }
    return kernel->launch(kernel->kernel, {blocks[0], blocks[1], blocks[2]},
                          {threads[0], threads[1], threads[2]}, shared, order, arguments);
}

extern "C" const char *emu_error() { return emu::last_error().c_str(); }

// Calls `each` with the name of every kernel.
extern "C" void emu_kernels(void (*each)(const char *name, void *context), void *context) {
    for (const auto &[name, kernel] : emu::kernels()) each(name.c_str(), context);
}
