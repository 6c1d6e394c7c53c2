// A warp: its registers, and which of its lanes are where in the program.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../async_copy.h"
#include "program.h"

namespace ptx {

class Block;

inline u32 lowest(u32 lanes) { return u32(__builtin_ctz(lanes)); }

// What a kernel does that PTX leaves undefined, or that has no end.
struct Fault {
    std::string message;
};

// Throws a Fault about a lane.
[[noreturn]] __attribute__((format(printf, 4, 5), cold)) void fault(const Warp& warp, const Instruction& at,
                                                                    u32 lane, const char* format, ...);

struct Warp {
    // The lanes of a register that lies at `offset`.
    template <class T>
    Stored<T>* lanes_of(u32 offset) const {
        return reinterpret_cast<Stored<T>*>(registers + offset);
    }
    // The set of lanes whose predicate is true.
    u32& predicate(u32 offset) const { return *reinterpret_cast<u32*>(registers + offset); }
    void set_predicate(u32 offset, u32 lanes, u32 values) const {
        u32& at = predicate(offset);
        at = (at & ~lanes) | (values & lanes);
    }

    // Starts a block with these lanes.
    void begin(u32 lanes);
    // Runs until no lane can go on, or for about this many jumps.
    void run(u64 jumps);

    bool has_exited() const { return exited == lanes; }

    Block* block = nullptr;
    u32 index = 0;  // in the block
    u8* registers = nullptr;
    u8* local = nullptr;  // of all lanes, lane after lane

    // Sets of lanes.
    u32 lanes = 0;  // fewer than 32 in the last warp of a block whose size is no multiple of 32
    u32 exited = 0;
    u32 parked = 0;  // wait for others at a collective

    const Instruction* barrier = nullptr;  // at which all of the warp waits
    u64 jumps = 0;                         // taken in this block

    simt::AsyncCopies copies[32];
    // The allocation that an access of this warp found last.
    u64 found_begin = 0, found_end = 0;

private:
    struct Group {
        u32 pc, lanes;
        u32 limit;  // where it may meet other lanes
    };
    Group pick();
    void advance(Group group, u64 jumps_end);
    void park(const Group& group, u32 active);
    void complete_collective();
    bool meets(const Instruction& at, u32 group) const;
    u32 members(const Instruction& at, u32 lane) const;
    [[noreturn]] void refuse_wait() const;
    void jump(const Group& group, u32 pc, u32 active);
    void set_pc(u32 of, u32 pc);

    u32 pcs[32];
};

}  // namespace ptx
