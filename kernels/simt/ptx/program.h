// A kernel in the form in which it is executed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "types.h"

namespace ptx {

constexpr u32 all_lanes = 0xffffffff;

struct Warp;
struct Instruction;

// Does the work of the lanes in `lanes`, of which there is at least one. A destination's register may be a
// source's too.
using Execute = void (*)(Warp& warp, const Instruction& at, u32 lanes);

enum class Kind : u8 {
    plain,
    branch,          // to `target`
    indexed_branch,  // brx.idx: to the kernel's targets[immediate + its operand], of which there are `target`
    exit,
    collective,  // all lanes of a mask, the register `mask`, execute this together
    barrier,     // all lanes of the warp wait here for other warps
};

struct Instruction {
    Execute execute = nullptr;
    // Where the registers lie in the warp's file: destinations, then sources.
    const u32* operands = nullptr;
    u64 immediate = 0;      // what it means is the instruction's own affair
    i64 offsets[2] = {};    // of the addresses among the operands, in their order
    bool are_wide[2] = {};  // whether the registers of these addresses have 64 bits
    Kind kind = Kind::plain;
    u32 guard = 0;   // the register of a predicate
    u32 flip = 0;    // ~0 for the lanes where it is false
    u32 mask = 0;    // of a collective
    u32 target = 0;  // of a branch
    u32 line = 0;
};

// A register that holds the same number in all lanes, or a special one.
struct Constant {
    u32 offset, width;
    u64 bits;
};
enum class Special : u8 {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid,
    warpid,
    nwarpid,
    lanemask_eq,
    lanemask_lt,
    lanemask_le,
    lanemask_gt,
    lanemask_ge,
    clock,
    clock64
};
struct SpecialRegister {
    u32 offset;
    Special which;
};

struct Kernel {
    std::string name, file;
    u32 max_threads;
    size_t params_bytes, static_shared_bytes, local_bytes;
    std::vector<Instruction> code;
    std::vector<u32> operands;  // of all instructions
    std::vector<u32> targets;   // of indexed branches
    std::vector<Constant> constants;
    std::vector<SpecialRegister> specials;
    size_t register_bytes;  // of a warp
};

// A variable of .global or .const.
struct Data {
    std::unique_ptr<u64[]> words;
    size_t bytes;

    u64 address() const { return reinterpret_cast<u64>(words.get()); }
};

struct Program {
    std::vector<Kernel> kernels;
    std::vector<Data> data;

    const Kernel* find(const std::string& name) const;
};

// The windows of generic addresses. Those of global memory are the host's, which end far below.
constexpr u64 shared_window = u64(1) << 62, local_window = u64(1) << 61, param_window = u64(1) << 60;

}  // namespace ptx
