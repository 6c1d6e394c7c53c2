#include "geometry.h"

#include <cstdio>
#include <numeric>
#include <random>
#include <utility>

#include "block.h"

namespace simt {
namespace {

// The limit of compute capability 9.0: CUDA programming guide, "Technical specifications per compute
// capability".
constexpr size_t max_shared_bytes = 227 << 10;

const char* reason(const Geometry& at, size_t params_bytes, size_t kernel_params_bytes, u32 max_threads) {
    const uint3 grid = at.grid, block = at.block;
    if (params_bytes != kernel_params_bytes) return "its parameters have another size";
    if (!block.x || !block.y || !block.z || block.z > 64) return "a block of this shape cannot be";
    if (block.x > max_block_threads || block.y > max_block_threads ||
        block.x * block.y * block.z > max_threads)
        return "more threads a block than its KERNEL line allows";
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff)
        return "a grid of this shape cannot be";
    if (at.shared_bytes > max_shared_bytes) return "more shared memory than any device has";
    if (at.first > at.blocks() || at.count > at.blocks() - at.first) return "blocks outside of the grid";
    return nullptr;
}

}  // namespace

std::string objection(const Geometry& at, size_t params_bytes, size_t kernel_params_bytes, u32 max_threads) {
    const char* what = reason(at, params_bytes, kernel_params_bytes, max_threads);
    if (!what) return {};
    char text[256];
    std::snprintf(text, sizeof text,
                  "%s (%zu bytes of parameters of %zu, grid %u x %u x %u, block %u x %u x %u of %u threads, "
                  "%zu bytes of shared memory)",
                  what, params_bytes, kernel_params_bytes, at.grid.x, at.grid.y, at.grid.z, at.block.x,
                  at.block.y, at.block.z, max_threads, at.shared_bytes);
    return text;
}

std::vector<u64> order(const Geometry& at, u64 seed) {
    std::vector<u64> blocks(at.count);
    std::iota(blocks.begin(), blocks.end(), at.first);
    if (seed) {
        std::mt19937_64 random(seed);
        for (u64 i = at.count; i > 1; --i) std::swap(blocks[i - 1], blocks[random() % i]);
    }
    return blocks;
}

}  // namespace simt
