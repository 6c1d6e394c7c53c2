// One block of a launch: its threads, which are fibres, the order of their turns, its barrier and its shared
// memory.
#pragma once

#include <cstddef>
#include <vector>

#include "async_copy.h"
#include "fiber.h"
#include "random.h"
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

// The parts of a launch that all of its blocks share.
struct Launch {
    const Kernel* kernel;
    const void* params;
    uint3 grid, block;
    size_t shared_bytes;
    u64 seed;
};

// PTX ISA: a block has at most 1024 threads; a warp has 32.
constexpr u32 max_block_threads = 1024;

// The state of one running block. An OS thread has one and runs block after block in it.
class Block {
public:
    // Prepares for the launch's blocks. Returns false, with a message, if memory is short.
    bool prepare(const Launch& launch, char* message, size_t capacity);
    // Runs the block at `index` to its end. Returns false, with a message, at a fault.
    bool run(uint3 index);
    // Frees shared memory.
    void finish();

    // The functions below act for the current thread.

    // Waits until every thread of the block has arrived.
    void barrier();
    // Lets other threads run until this thread is ready and has its turn.
    void suspend();
    // Faults unless the `bytes` (a power of two) at `address` are aligned and lie in shared memory.
    void check_shared(const void* address, size_t bytes, const char* what) const;
    // Ends the launch with a message, after behaviour that is undefined on a GPU.
    [[noreturn]] void fail(const char* what);
    // Returns true about every second time under a nonzero seed, and never under seed 0.
    bool coin() { return random.coin(); }

    void make_ready(Warp& warp, u32 lanes);

    uint3 index;  // blockIdx
    Launch launch;
    unsigned char* shared = nullptr;

private:
    [[noreturn]] static void run_thread();
    [[noreturn]] void exit();
    Thread& take_turn();

    Stacks stacks;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    u32 ready_warps = 0;  // set of the warps that have a ready lane
    u32 turn = 0;         // the warp that ran last
    u32 alive = 0;        // threads that have not exited
    u32 arrived = 0;      // threads at the barrier
    Random random;
    u32 patience = 1;  // the mean number of turns that a warp keeps
    Context home;      // the execution of the OS thread itself
    char* message = nullptr;
    size_t capacity = 0;
    bool faulted = false;
};

// The block and the thread that the calling OS thread runs. A fibre never leaves its OS thread, so both may
// be cached.
inline thread_local Block* block = nullptr;
inline thread_local Thread* thread = nullptr;

// Ends the launch with a message about the current thread.
[[noreturn]] __attribute__((format(printf, 1, 2), cold)) void fault(const char* format, ...);

}  // namespace simt
