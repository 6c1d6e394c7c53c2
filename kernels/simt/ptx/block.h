// One block of a launch: its memory, and the order in which its warps run.
#pragma once

#include <vector>

#include "../geometry.h"
#include "../random.h"
#include "warp.h"

namespace ptx {

// Global memory that a launch may access, in order of its addresses.
struct Range {
    u64 begin, end;
};

struct Launch {
    const Kernel* kernel;
    const u8* params;
    simt::Geometry geometry;
    u64 seed;
    std::vector<Range> global;
};

class Block {
public:
    // PRECOND: the launch outlives this.
    explicit Block(const Launch& launch);
    Block(const Block&) = delete;

    // Runs the block at `index` to its end. Throws Fault.
    void run(uint3 index);

    // How a warp's diverged lanes take turns: together where they meet again, or each set for itself, which
    // no processor does but PTX allows.
    bool scatters = false;

    const Launch& launch;
    uint3 index{};
    simt::Random random;
    u8* shared = nullptr;
    size_t shared_bytes = 0;

private:
    void begin(uint3 at);
    void set_constants(Warp& warp);
    void set_specials(Warp& warp);
    u64 special(Special which, u32 warp, u32 lane) const;
    u32 ready_warps() const;
    bool open_barriers();
    u32 expected_at(const Warp& warp) const;
    static u32 barrier_of(const Warp& warp);
    [[noreturn]] void refuse_wait() const;

    u32 threads;
    u32 patience = 1;  // in jumps; 0: without an end
    std::vector<Warp> warps;
    std::vector<u8> memory;  // registers, shared and local memory
};

}  // namespace ptx
