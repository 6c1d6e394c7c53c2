// A launch of a kernel that the host's compiler built.
#include <cstdio>
#include <cstring>
#include <string>

#include "block.h"
#include "geometry.h"
#include "simt.h"

int codit_simt_run(const char* name, const void* params, size_t params_bytes, const uint32_t grid[3],
                   const uint32_t block[3], size_t shared_bytes, uint64_t seed, uint64_t first_block,
                   uint64_t blocks, char* message, size_t capacity) {
    using namespace simt;
    const Kernel* kernel = Kernel::find(name);
    if (!kernel) {
        std::snprintf(message, capacity, "%s: there is no kernel of this name", name);
        return 1;
    }
    const Geometry geometry{
        {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes, first_block, blocks};
    const std::string what = objection(geometry, params_bytes, kernel->params_bytes, kernel->max_threads);
    if (!what.empty()) {
        std::snprintf(message, capacity, "%s: %s", name, what.c_str());
        return 1;
    }

    alignas(16) unsigned char constants[max_params_bytes];  // the caller's bytes need not be aligned
    std::memcpy(constants, params, params_bytes);
    static thread_local Block executor;
    bool good = executor.prepare({kernel, constants, geometry.grid, geometry.block, shared_bytes, seed},
                                 message, capacity);
    if (good) {
        for (const u64 linear : order(geometry, seed)) {
            good = executor.run(geometry.block_at(linear));
            if (!good) break;
        }
    }
    executor.finish();
    return good ? 0 : 1;
}
