// Copies between registers of different widths.
#pragma once

#include "program.h"

namespace ptx {

// Copies the low bits, or extends them by zeros or by the sign. Bytes of a lane.
Execute resize(u32 to, u32 from, bool is_signed);

// Turns a predicate around.
void invert_predicate(Warp& warp, const Instruction& at, u32 lanes);

}  // namespace ptx
