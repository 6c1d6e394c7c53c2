// One block of a launch: its threads as fibres, the order of their turns, its barrier, its shared memory.
#pragma once

#include <cstddef>
#include <vector>

#include "async_copy.h"
#include "fiber.h"
#include "registry.h"
#include "types.h"
#include "warp.h"

namespace simt {

struct Thread {
    uint3 index;  // threadIdx
    u32 lane;
    Warp* warp;
    Context context;
    AsyncCopies copies;
};

// What all blocks of a launch have in common.
struct Launch {
    const Kernel* kernel;
    const void* params;
    uint3 grid, block;
    size_t shared_bytes;
    u64 seed;
};

// PTX ISA: a block has at most 1024 threads, of which 32 a warp.
constexpr u32 max_block_threads = 1024;

// An OS thread has one of these and runs block after block in it.
class Block {
public:
    // Readies this for the launch's blocks. False, with a message, where memory is short.
    bool prepare(const Launch& launch, char* message, size_t capacity);
    // Runs the block at `index` to its end. False, with a message, at a fault.
    bool run(uint3 index);
    // Frees shared memory.
    void finish();

    // For the current thread:

    // Waits until every thread of the block is here.
    void barrier();
    // Lets others run until this thread is ready and its turn has come.
    void suspend();
    // Faults unless `bytes` (a power of two) at `address` are aligned and lie in shared memory.
    void check_shared(const void* address, size_t bytes, const char* what) const;
    // The launch ends here: what would be undefined on a GPU has happened.
    [[noreturn]] void fail(const char* what);
    // True every second time or so under a nonzero seed, never under seed 0.
    bool coin();

    void make_ready(Warp& warp, u32 lanes);

    uint3 index;  // blockIdx
    Launch launch;
    unsigned char* shared = nullptr;

private:
    [[noreturn]] static void run_thread();
    [[noreturn]] void exit();
    Thread& take_turn();
    // An element of a set that is not empty; in order the lowest.
    u32 choose(u32 set);
    // A number less than `below`; in order 0.
    u32 draw(u32 below);

    Stacks stacks;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    u32 ready_warps = 0;  // those with a ready lane
    u32 turn = 0;         // the warp that ran last
    u32 alive = 0;        // threads that have not exited
    u32 arrived = 0;      // threads at the barrier
    u64 random = 0;
    u32 patience = 1;  // turns that a warp keeps, about
    Context home;      // the OS thread's own execution
    char* message = nullptr;
    size_t capacity = 0;
    bool faulted = false;
};

// Where the calling OS thread is. A fibre never leaves its OS thread, so these may be cached.
inline thread_local Block* block = nullptr;
inline thread_local Thread* thread = nullptr;

// Ends the launch with a message about the current thread.
[[noreturn]] __attribute__((format(printf, 1, 2), cold)) void fault(const char* format, ...);

}  // namespace simt
