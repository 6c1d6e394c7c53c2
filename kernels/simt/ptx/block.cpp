#include "block.h"

#include <cstring>

#include "warp.h"

namespace ptx {
namespace {

constexpr size_t alignment = 256;

size_t aligned(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

Block::Block(const Launch& of) : launch(of) {
    const Kernel& kernel = *launch.kernel;
    const uint3 shape = launch.geometry.block;
    threads = shape.x * shape.y * shape.z;
    warps.resize((threads + 31) / 32);
    shared_bytes = kernel.static_shared_bytes + launch.geometry.shared_bytes;

    const size_t registers = aligned(kernel.register_bytes), local = aligned(32 * kernel.local_bytes);
    memory.resize(alignment + aligned(shared_bytes) + warps.size() * (registers + local));
    u8* free = memory.data() + (alignment - reinterpret_cast<u64>(memory.data()) % alignment);
    shared = free;
    free += aligned(shared_bytes);
    for (Warp& warp : warps) {
        warp.block = this;
        warp.index = u32(&warp - warps.data());
        warp.registers = free;
        warp.local = free + registers;
        free += registers + local;
        std::memset(warp.registers, 0xFF, registers);
        set_constants(warp);
    }
}

void Block::set_constants(Warp& warp) {
    for (const Constant& constant : launch.kernel->constants) {
        u8* to = warp.registers + constant.offset;
        if (!constant.width) {  // a predicate
            warp.predicate(constant.offset) = u32(constant.bits);
            continue;
        }
        for (u32 lane = 0; lane < 32; ++lane)
            std::memcpy(to + lane * constant.width, &constant.bits, constant.width);
    }
}

void Block::run(uint3 at) {
    begin(at);
    u32 turn = 0;
    for (;;) {
        const u32 ready = ready_warps();
        if (ready) {
            // Under seed 0 a warp runs as far as it can.
            turn = random.choose(ready);
            warps[turn].run(patience ? 1 + random.draw(patience) : 0);
        } else if (!open_barriers()) {
            for (const Warp& warp : warps)
                if (warp.barrier) refuse_wait();
            return;
        }
    }
}

void Block::begin(uint3 at) {
    index = at;
    const simt::Geometry& shape = launch.geometry;
    random = simt::Random(launch.seed, (u64(at.z) * shape.grid.y + at.y) * shape.grid.x + at.x);
    // In some blocks a warp runs until it waits, in others all warps advance together. A missing barrier
    // shows in one of the two, and an assumption about lanes that run in lockstep shows in the few blocks
    // that scatter.
    patience = random.coin() ? 16 : 0;
    scatters = launch.seed && random.draw(16) == 0;
    std::memset(shared, 0xFF, shared_bytes);
    for (Warp& warp : warps) {
        const u32 left = threads - warp.index * 32;
        warp.begin(left < 32 ? (1u << left) - 1 : all_lanes);
        std::memset(warp.local, 0xFF, 32 * launch.kernel->local_bytes);
        set_specials(warp);
        for (simt::AsyncCopies& copies : warp.copies) copies.forget();
    }
}

void Block::set_specials(Warp& warp) {
    for (const SpecialRegister& each : launch.kernel->specials) {
        for (u32 lane = 0; lane < 32; ++lane) {
            const u64 value = special(each.which, warp.index, lane);
            if (each.which == Special::clock64) {
                warp.lanes_of<u64>(each.offset)[lane] = value;
            } else {
                warp.lanes_of<u32>(each.offset)[lane] = u32(value);
            }
        }
    }
}

u64 Block::special(Special which, u32 warp, u32 lane) const {
    const uint3 grid = launch.geometry.grid, shape = launch.geometry.block;
    const u32 thread = warp * 32 + lane, self = 1u << lane;
    switch (which) {
        case Special::tid_x:
            return thread % shape.x;
        case Special::tid_y:
            return thread / shape.x % shape.y;
        case Special::tid_z:
            return thread / shape.x / shape.y;
        case Special::ntid_x:
            return shape.x;
        case Special::ntid_y:
            return shape.y;
        case Special::ntid_z:
            return shape.z;
        case Special::ctaid_x:
            return index.x;
        case Special::ctaid_y:
            return index.y;
        case Special::ctaid_z:
            return index.z;
        case Special::nctaid_x:
            return grid.x;
        case Special::nctaid_y:
            return grid.y;
        case Special::nctaid_z:
            return grid.z;
        case Special::laneid:
            return lane;
        case Special::warpid:
            return warp;
        case Special::nwarpid:
            return warps.size();
        case Special::lanemask_eq:
            return self;
        case Special::lanemask_lt:
            return self - 1;
        case Special::lanemask_le:
            return self | (self - 1);
        case Special::lanemask_gt:
            return ~(self | (self - 1));
        case Special::lanemask_ge:
            return ~(self - 1);
        case Special::clock:
        case Special::clock64:
            return 0;  // no time passes
    }
    return 0;
}

u32 Block::ready_warps() const {
    u32 ready = 0;
    for (const Warp& warp : warps) ready |= u32(!warp.barrier && !warp.has_exited()) << warp.index;
    return ready;
}

// The number of the barrier at which a warp waits.
u32 Block::barrier_of(const Warp& warp) { return warp.lanes_of<u32>(warp.barrier->operands[0])[0]; }

// How many threads the barrier of a warp waits for: bar.sync a, b names their number, bar.sync a waits for
// all.
u32 Block::expected_at(const Warp& warp) const {
    return warp.barrier->immediate ? warp.lanes_of<u32>(warp.barrier->operands[1])[0] : threads;
}

// No warp can go on. Lets those go on whose barrier has all of its threads; returns whether there are any.
bool Block::open_barriers() {
    for (Warp& first : warps) {
        if (!first.barrier) continue;
        const u32 number = barrier_of(first);
        u32 arrived = 0;
        for (Warp& warp : warps)
            if (warp.barrier && barrier_of(warp) == number) arrived += u32(__builtin_popcount(warp.lanes));
        if (arrived != expected_at(first)) continue;
        for (Warp& warp : warps)
            if (warp.barrier && barrier_of(warp) == number) warp.barrier = nullptr;
        return true;
    }
    return false;
}

void Block::refuse_wait() const {
    for (const Warp& warp : warps) {
        if (!warp.barrier) continue;
        for (const Warp& other : warps) {
            if (other.has_exited())
                fault(warp, *warp.barrier, 0, "a barrier waits for warp %u, which has exited", other.index);
            if (other.barrier != warp.barrier)
                fault(warp, *warp.barrier, 0, "a barrier waits for warp %u, which waits at line %u",
                      other.index, other.barrier->line);
        }
        fault(warp, *warp.barrier, 0, "a barrier of another number of threads than the block has");
    }
    __builtin_unreachable();
}

}  // namespace ptx
