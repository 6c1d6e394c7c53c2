// The numbers that a launch's seed draws for one of its blocks.
#pragma once

#include "types.h"

namespace simt {

// A hash of both numbers, by the finalizer of splitmix64.
inline u64 mix(u64 seed, u64 index) {
    u64 x = seed + (index + 1) * 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

class Random {
public:
    Random() = default;
    Random(u64 seed, u64 block) : is_ordered(!seed), state(mix(seed, block)) {}

    // A number less than `below`. Under seed 0 it is 0.
    u32 draw(u32 below) {
        if (is_ordered) return 0;
        state = state * 6364136223846793005 + 1442695040888963407;
        return u32((state >> 32) * below >> 32);  // the high bits of a linear congruence are its random ones
    }

    // An element of a set that is not empty. Under seed 0 it is the lowest.
    u32 choose(u32 set) {
        for (u32 skip = draw(u32(__builtin_popcount(set))); skip; --skip) set &= set - 1;
        return u32(__builtin_ctz(set));
    }

    // True about every second time under a nonzero seed, and never under seed 0.
    bool coin() { return draw(2); }

private:
    bool is_ordered = true;
    u64 state = 0;
};

}  // namespace simt
