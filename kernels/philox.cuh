// The noise of a token (`Noise` in src/contrast): Philox4x32-10 (Salmon et al. 2011), and Gumbel draws from
// its bits.
#pragma once

#include "prelude.cuh"

// The bits of four neighbouring tokens; token id has of[id % 4].
struct NoiseBits {
    u32 of[4];
};

// The bits of the tokens 4 * quad to 4 * quad + 3 at `position`.
DEVICE NoiseBits noise_bits(u32 quad, u32 position, const u32 (&record)[2], const u32 (&sample_key)[2]) {
    u32 counter[4] = {quad, position, record[0], record[1]};
    u32 key[2] = {sample_key[0], sample_key[1]};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 first = u64(0xD2511F53u) * counter[0], second = u64(0xCD9E8D57u) * counter[2];
        counter[0] = u32(second >> 32) ^ counter[1] ^ key[0];
        counter[1] = u32(second);
        counter[2] = u32(first >> 32) ^ counter[3] ^ key[1];
        counter[3] = u32(first);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return {{counter[0], counter[1], counter[2], counter[3]}};
}

// A draw of the Gumbel distribution: -ln(-ln u) with u = (bits + 1/2) / 2^32.
DEVICE double gumbel(u32 bits) { return -log(-log((double(bits) + 0.5) * 0x1p-32)); }

// The same draw within 5e-5, by two logarithms of the special function unit.
DEVICE float gumbel_approx(u32 bits) {
    // Near 1, u itself would round to 1. There, -ln u is computed as a series of 1 - u.
    const float complement = (float(~bits) + 0.5f) * 0x1p-32f;
    const float series =
        complement * (1.0f + complement * (0.5f + complement * (0.33333333f + complement * 0.25f)));
    const float u = complement > 0.5f ? (float(bits) + 0.5f) * 0x1p-32f : 1.0f - complement;
    return -__logf(complement < 0x1p-6f ? series : -__logf(u));
}

// An upper bound of gumbel(bits) without a logarithm: -ln(-ln u) <= -ln(1 - u), which the leading zeros of 1
// - u bound.
DEVICE double gumbel_bound(u32 bits) { return double(__clz(i32(~bits)) + 1) * 0.6931471806 + 1e-9; }
