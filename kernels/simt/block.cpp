#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "simt.h"

#if SIMT_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
#if SIMT_ADDRESS_SANITIZER
namespace {

// Names the current thread. AddressSanitizer's reports show only the stack of the kernel.
void say_where() {
    if (!thread) return;
    const uint3 at = block->index, in = thread->index;
    std::fprintf(stderr, "%s, block (%u, %u, %u), thread (%u, %u, %u): see AddressSanitizer's report above\n",
                 block->launch.kernel->name, at.x, at.y, at.z, in.x, in.y, in.z);
}

[[maybe_unused]] const bool says_where = (__sanitizer_set_death_callback(say_where), true);

}  // namespace
#endif

bool Block::prepare(const Launch& next, char* message_to, size_t message_capacity) {
    launch = next;
    message = message_to;
    capacity = message_capacity;
    faulted = false;
    const uint3 shape = launch.block;
    const u32 count = shape.x * shape.y * shape.z;
    if (!stacks.reserve(count)) {
        std::snprintf(message, capacity, "no memory for the stacks of %u threads", count);
        return false;
    }
    shared = static_cast<unsigned char*>(codit_simt_allocate(launch.shared_bytes));
    if (!shared) {
        std::snprintf(message, capacity, "no memory for %zu bytes of shared memory", launch.shared_bytes);
        return false;
    }
    threads.resize(count);
    warps.resize((count + 31) / 32);
    for (u32 i = 0; i < count; ++i) {
        threads[i].index = {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
        threads[i].lane = i % 32;
        threads[i].warp = &warps[i / 32];
    }
    return true;
}

void Block::finish() {
    codit_simt_free(shared);
    shared = nullptr;
}

bool Block::run(uint3 at) {
    index = at;
    std::memset(shared, 0xFF, launch.shared_bytes);
    const u64 linear = (u64(at.z) * launch.grid.y + at.y) * launch.grid.x + at.x;
    random = Random(launch.seed, linear);
    patience = 1u << 3 * random.draw(4);
    alive = u32(threads.size());
    arrived = ready_warps = turn = 0;
    for (u32 i = 0; i < warps.size(); ++i) {
        const u32 lanes = alive - 32 * i;
        warps[i].begin(lanes < 32 ? (1u << lanes) - 1 : all_lanes);
        ready_warps |= 1u << i;
    }
    for (u32 i = 0; i < threads.size(); ++i) threads[i].context.start(stacks[i], run_thread);

    block = this;
    thread = &take_turn();
    home.switch_to(thread->context);
    thread = nullptr;
    block = nullptr;
    if (faulted) {
        for (Thread& abandoned : threads) abandoned.copies.forget();
    }
    return !faulted;
}

void Block::run_thread() {
    block->launch.kernel->body(block->launch.params);
    block->exit();
}

void Block::exit() {
    Warp& warp = *thread->warp;
    if (warp.claimed >> thread->lane & 1) {
        const Rendezvous& at = warp.claim_on(thread->lane);
        fault("exits, but lane %d waits for it at %s(mask %08x)", __builtin_ctz(at.arrived),
              at.collective->name, at.mask);
    }
    if (arrived) {
        for (const Thread& other : threads) {
            if (!(other.warp->at_barrier >> other.lane & 1)) continue;
            fault("exits, but thread (%u, %u, %u) waits at __syncthreads()", other.index.x, other.index.y,
                  other.index.z);
        }
    }
    thread->copies.forget();
    warp.exited |= 1u << thread->lane;
    Context& self = thread->context;
    thread = --alive ? &take_turn() : nullptr;
    self.switch_to(thread ? thread->context : home);
    __builtin_unreachable();
}

void Block::barrier() {
    Warp& warp = *thread->warp;
    if (warp.claimed >> thread->lane & 1) {
        const Rendezvous& at = warp.claim_on(thread->lane);
        fault("is at __syncthreads(), but lane %d waits for it at %s(mask %08x)", __builtin_ctz(at.arrived),
              at.collective->name, at.mask);
    }
    if (alive < threads.size()) {
        for (const Thread& other : threads) {
            if (!(other.warp->exited >> other.lane & 1)) continue;
            fault("is at __syncthreads(), but thread (%u, %u, %u) has exited", other.index.x, other.index.y,
                  other.index.z);
        }
    }
    warp.at_barrier |= 1u << thread->lane;
    if (++arrived == alive) {
        arrived = 0;
        for (Warp& each : warps) {
            each.at_barrier = 0;
            make_ready(each, each.lanes);
        }
    }
    suspend();
}

void Block::make_ready(Warp& warp, u32 lanes) {
    warp.ready |= lanes;
    ready_warps |= 1u << (&warp - warps.data());
}

// Under seed 0, the first thread that is ready is next. Under another seed, a warp keeps its turn for a time
// that is drawn for the block: in some blocks all warps advance together, in others one warp runs far ahead.
// A missing barrier shows in one of the two.
Thread& Block::take_turn() {
    // meet() and barrier() detect this earlier.
    if (!ready_warps) fault("waits for ever: no thread is ready");
    if (!(ready_warps >> turn & 1) || random.draw(patience) == 0) turn = random.choose(ready_warps);
    Warp& warp = warps[turn];
    const u32 lane = random.choose(warp.ready);
    warp.ready &= ~(1u << lane);
    if (!warp.ready) ready_warps &= ~(1u << turn);
    return threads[turn * 32 + lane];
}

void Block::suspend() {
    Context& self = thread->context;
    thread = &take_turn();
    if (&thread->context != &self) self.switch_to(thread->context);
}

void Block::check_shared(const void* address, size_t bytes, const char* what) const {
    const size_t offset = size_t(static_cast<const unsigned char*>(address) - shared);
    if (offset > launch.shared_bytes || bytes > launch.shared_bytes - offset)
        fault("%s at %p, which is not in the block's %zu bytes of shared memory", what, address,
              launch.shared_bytes);
    if (offset % bytes)
        fault("%s at byte %zu of shared memory, which is no multiple of %zu", what, offset, bytes);
}

void Block::fail(const char* what) {
    const uint3 at = thread->index;
    std::snprintf(message, capacity, "%s, block (%u, %u, %u), thread (%u, %u, %u): %s", launch.kernel->name,
                  index.x, index.y, index.z, at.x, at.y, at.z, what);
    faulted = true;
    thread->context.switch_to(home);
    __builtin_unreachable();
}

void fault(const char* format, ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    block->fail(what);
}

}  // namespace simt
