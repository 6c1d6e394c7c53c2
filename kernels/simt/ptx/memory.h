// The state spaces: which host memory an address means, and whether an access may be.
#pragma once

#include "block.h"
#include "form.h"
#include "warp.h"

namespace ptx {

enum class Space : u8 { global, shared, local, param, generic };

// The addresses of an access, lane by lane. `number` is the place of the address among those of the
// instruction.
void addresses_of(Warp& warp, const Instruction& at, u32 operand, u32 number, u64 addresses[32]);

// The memory at an address. Faults unless `bytes`, a power of two, are aligned and lie in one variable or
// allocation.
u8* locate(Warp& warp, const Instruction& at, u32 lane, Space space, u64 address, u32 bytes);
// The same without the demand on alignment, for a read of global memory of any size.
const u8* locate_source(Warp& warp, const Instruction& at, u32 lane, u64 address, u32 bytes);

// Whether accesses of global memory by all these lanes are good; finds their allocation only once.
bool are_in_one_allocation(Warp& warp, u32 lanes, const u64 addresses[32], u32 bytes);

}  // namespace ptx
