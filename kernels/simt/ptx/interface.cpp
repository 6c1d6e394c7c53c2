// The C interface to kernels in PTX.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "../global_memory.h"
#include "../simt.h"
#include "block.h"
#include "load.h"

struct codit_ptx {
    ptx::Program program;
};

namespace ptx {
namespace {

std::vector<Range> accessible(const Program& program) {
    std::vector<Range> ranges;
    for (const simt::Allocation& each : simt::allocations())
        ranges.push_back({each.begin, each.begin + each.bytes});
    for (const Data& each : program.data) ranges.push_back({each.address(), each.address() + each.bytes});
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    return ranges;
}

void run(const Program& program, const Kernel& kernel, const u8* params, const simt::Geometry& geometry,
         u64 seed) {
    const Launch launch{&kernel, params, geometry, seed, accessible(program)};
    Block block(launch);
    for (const u64 linear : simt::order(geometry, seed)) block.run(geometry.block_at(linear));
}

// Runs `work`; returns 0, or 1 with the message of what it threw.
template <class F>
int reporting(char* message, size_t capacity, F work) {
    std::string text;
    try {
        work();
        return 0;
    } catch (const Error& error) {
        text = error.message;
    } catch (const Fault& fault) {
        text = fault.message;
    } catch (const std::exception& error) {  // memory is short
        text = error.what();
    }
    std::snprintf(message, capacity, "%s", text.c_str());
    return 1;
}

}  // namespace
}  // namespace ptx

codit_ptx* codit_ptx_load(const char* folder, char* message, size_t capacity) {
    codit_ptx* loaded = nullptr;
    ptx::reporting(message, capacity, [&] { loaded = new codit_ptx{ptx::load(folder)}; });
    return loaded;
}

void codit_ptx_free(codit_ptx* loaded) { delete loaded; }

int codit_ptx_run(const codit_ptx* loaded, const char* name, const void* params, size_t params_bytes,
                  const uint32_t grid[3], const uint32_t block[3], size_t shared_bytes, uint64_t seed,
                  uint64_t first_block, uint64_t blocks, char* message, size_t capacity) {
    return ptx::reporting(message, capacity, [&] {
        const ptx::Kernel* kernel = loaded->program.find(name);
        if (!kernel) throw ptx::Error{std::string(name) + ": no file of PTX has a kernel of this name"};
        const simt::Geometry geometry{
            {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes, first_block, blocks};
        const std::string what =
            simt::objection(geometry, params_bytes, kernel->params_bytes, kernel->max_threads);
        if (!what.empty()) throw ptx::Error{std::string(name) + ": " + what};
        // The caller's bytes need not be aligned.
        std::vector<u64> aligned(params_bytes / sizeof(u64) + 1);
        std::memcpy(aligned.data(), params, params_bytes);
        ptx::run(loaded->program, *kernel, reinterpret_cast<const u8*>(aligned.data()), geometry, seed);
    });
}
