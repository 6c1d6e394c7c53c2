#include <cstdlib>
#include <cstring>

#include "simt.h"

void* codit_simt_allocate(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
    std::memset(memory, 0xFF, bytes);
    return memory;
}

void codit_simt_free(void* memory) { std::free(memory); }
