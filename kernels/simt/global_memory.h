// The allocations of global memory that exist now.
#pragma once

#include <cstddef>
#include <vector>

#include "types.h"

namespace simt {

struct Allocation {
    u64 begin;
    size_t bytes;
};

// In no particular order. Those that other threads make or free meanwhile may or may not be among them.
std::vector<Allocation> allocations();

}  // namespace simt
