// A launch: checks its arguments and runs its blocks in the order that the seed draws.
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "block.h"
#include "simt.h"

namespace simt {
namespace {

// The limit of compute capability 9.0: CUDA programming guide, "Technical specifications per compute
// capability".
constexpr size_t max_shared_bytes = 227 << 10;

// The reason to refuse the launch, or null.
const char* objection(const Kernel& kernel, size_t params_bytes, uint3 grid, uint3 block, size_t shared_bytes,
                      u64 first, u64 count) {
    if (params_bytes != kernel.params_bytes) return "its parameters have another size";
    if (!block.x || !block.y || !block.z || block.z > 64) return "a block of this shape cannot be";
    if (block.x > max_block_threads || block.y > max_block_threads ||
        block.x * block.y * block.z > kernel.max_threads)
        return "more threads a block than its KERNEL line allows";
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff)
        return "a grid of this shape cannot be";
    if (shared_bytes > max_shared_bytes) return "more shared memory than any device has";
    const u64 blocks = u64(grid.x) * grid.y * grid.z;
    if (first > blocks || count > blocks - first) return "blocks outside of the grid";
    return nullptr;
}

// The order of `count` blocks from `first` on.
std::vector<u64> order(u64 seed, u64 first, u64 count) {
    std::vector<u64> blocks(count);
    std::iota(blocks.begin(), blocks.end(), first);
    if (seed) {
        std::mt19937_64 random(seed);
        for (u64 i = count; i > 1; --i) std::swap(blocks[i - 1], blocks[random() % i]);
    }
    return blocks;
}

}  // namespace
}  // namespace simt

int codit_simt_run(const char* name, const void* params, size_t params_bytes, const uint32_t grid[3],
                   const uint32_t block[3], size_t shared_bytes, uint64_t seed, uint64_t first_block,
                   uint64_t blocks, char* message, size_t capacity) {
    using namespace simt;
    const Kernel* kernel = Kernel::find(name);
    if (!kernel) {
        std::snprintf(message, capacity, "%s: there is no kernel of this name", name);
        return 1;
    }
    const uint3 grid_shape{grid[0], grid[1], grid[2]}, block_shape{block[0], block[1], block[2]};
    if (const char* what =
            objection(*kernel, params_bytes, grid_shape, block_shape, shared_bytes, first_block, blocks)) {
        std::snprintf(
            message, capacity,
            "%s: %s (%zu bytes of parameters of %zu, grid %u x %u x %u, block %u x %u x %u of %u threads, "
            "%zu bytes of shared memory)",
            name, what, params_bytes, kernel->params_bytes, grid[0], grid[1], grid[2], block[0], block[1],
            block[2], kernel->max_threads, shared_bytes);
        return 1;
    }

    alignas(16) unsigned char constants[max_params_bytes];  // the caller's bytes need not be aligned
    std::memcpy(constants, params, params_bytes);
    static thread_local Block executor;
    bool good =
        executor.prepare({kernel, constants, grid_shape, block_shape, shared_bytes, seed}, message, capacity);
    if (good) {
        for (const u64 linear : order(seed, first_block, blocks)) {
            const u32 row = u32(linear / grid[0] % grid[1]), plane = u32(linear / grid[0] / grid[1]);
            good = executor.run({u32(linear % grid[0]), row, plane});
            if (!good) break;
        }
    }
    executor.finish();
    return good ? 0 : 1;
}
