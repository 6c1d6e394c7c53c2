#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "global_memory.h"
#include "simt.h"

namespace simt {
namespace {

struct Registry {
    std::mutex lock;
    std::unordered_map<void*, size_t> bytes_at;
};

// Lives as long as the process, since memory may be freed while it ends.
Registry& registry() {
    static Registry* const all = new Registry;
    return *all;
}

}  // namespace

std::vector<Allocation> allocations() {
    Registry& all = registry();
    const std::lock_guard<std::mutex> guard(all.lock);
    std::vector<Allocation> found;
    found.reserve(all.bytes_at.size());
    for (const auto& [memory, bytes] : all.bytes_at)
        found.push_back({reinterpret_cast<uintptr_t>(memory), bytes});
    return found;
}

}  // namespace simt

void* codit_simt_allocate(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
    std::memset(memory, 0xFF, bytes);
    simt::Registry& all = simt::registry();
    const std::lock_guard<std::mutex> guard(all.lock);
    all.bytes_at[memory] = bytes;
    return memory;
}

void codit_simt_free(void* memory) {
    simt::Registry& all = simt::registry();
    {
        const std::lock_guard<std::mutex> guard(all.lock);
        all.bytes_at.erase(memory);
    }
    std::free(memory);
}
