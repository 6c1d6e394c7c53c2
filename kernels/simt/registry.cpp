#include "registry.h"

#include <cstring>

#include "simt.h"

namespace simt {
namespace {

// Constant initialization makes this ready before the constructor of any kernel.
const Kernel* first = nullptr;

}  // namespace

Kernel::Kernel(const char* name, size_t params_bytes, u32 max_threads, void (*body)(const void*))
    : name(name), params_bytes(params_bytes), max_threads(max_threads), body(body), next(first) {
    first = this;
}

const Kernel* Kernel::find(const char* name) {
    const Kernel* kernel = first;
    while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
    return kernel;
}

}  // namespace simt

size_t codit_simt_kernels(const char** names, size_t* params_bytes, size_t capacity) {
    size_t count = 0;
    for (const simt::Kernel* kernel = simt::first; kernel; kernel = kernel->next, ++count) {
        if (count < capacity) {
            names[count] = kernel->name;
            params_bytes[count] = kernel->params_bytes;
        }
    }
    return count;
}
