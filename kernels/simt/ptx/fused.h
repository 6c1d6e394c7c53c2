// Fused multiply-add, by the processor's instruction where it has one.
#pragma once

#include "program.h"

namespace ptx {

// d = a * b + c, rounded once to the nearest. The type is f32 or f64.
Execute fused_multiply_add(Type type);

}  // namespace ptx
