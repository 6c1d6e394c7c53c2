// Asynchronous copies: PTX ISA, "cp.async". ../async_copy.h says when they land. Until then, the bytes that
// they will write hold NaN.
#include "memory.h"

namespace ptx {
namespace {

// Operands: the shared address, the global one, the bytes to write and, if the immediate's lowest bit says
// so, how many of them are copied; the others are zeros.
void run_copy(Warp& warp, const Instruction& at, u32 lanes) {
    u64 to[32], from[32];
    addresses_of(warp, at, 0, 0, to);
    addresses_of(warp, at, 1, 1, from);
    const u32* const sizes = warp.lanes_of<u32>(at.operands[2]);
    const u32* const copied = at.immediate & 1 ? warp.lanes_of<u32>(at.operands[3]) : sizes;
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left), bytes = sizes[lane];
        if (bytes != 4 && bytes != 8 && bytes != 16) fault(warp, at, lane, "cp.async of %u bytes", bytes);
        if (copied[lane] > bytes) fault(warp, at, lane, "cp.async of %u bytes from %u", bytes, copied[lane]);
        if (copied[lane] && from[lane] % bytes)
            fault(warp, at, lane,
                  "cp.async of %u bytes from global address 0x%llx, which is no multiple of %u", bytes,
                  from[lane], bytes);
        u8* const place = locate(warp, at, lane, Space::shared, to[lane], bytes);
        const simt::AsyncCopy copy{place, locate_source(warp, at, lane, from[lane], copied[lane]), bytes,
                                   copied[lane]};
        if (warp.block->random.coin()) {
            copy.land();
        } else {
            std::memset(place, 0xFF, bytes);
            warp.copies[lane].issue(copy);
        }
    }
}

void run_commit(Warp& warp, const Instruction&, u32 lanes) {
    for (u32 left = lanes; left; left &= left - 1) warp.copies[lowest(left)].commit();
}

void run_wait(Warp& warp, const Instruction& at, u32 lanes) {
    const u32* const pending = warp.lanes_of<u32>(at.operands[0]);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        warp.copies[lane].wait(pending[lane]);
    }
}

// Waits for copies that no group holds too.
void run_wait_all(Warp& warp, const Instruction&, u32 lanes) {
    for (u32 left = lanes; left; left &= left - 1) {
        simt::AsyncCopies& copies = warp.copies[lowest(left)];
        copies.commit();
        copies.wait(0);
    }
}

}  // namespace

Form cp(Opcode& opcode, const Statement& statement) {
    if (!opcode.take("async")) return {};
    if (opcode.take("commit_group")) return {run_commit, {}, {}};
    if (opcode.take("wait_group")) return {run_wait, {}, {Type::u32}};
    if (opcode.take("wait_all")) return {run_wait_all, {}, {}};
    if (!opcode.take_one({"ca", "cg"}) || !opcode.take_one({"shared", "shared::cta"}) ||
        !opcode.take("global"))
        return {};
    const bool has_policy = opcode.take("L2::cache_hint");
    while (opcode.take_beginning("L2::")) {
    }
    const size_t operands = statement.operands.size() - has_policy;
    if (operands != 3 && operands != 4) return {};
    Form form{run_copy, {}, {address, address, Type::u32}};
    if (operands == 4) form.sources.push_back(Type::u32);
    if (has_policy) form.sources.push_back(Type::b64);
    form.immediate = operands == 4;
    return form;
}

}  // namespace ptx
