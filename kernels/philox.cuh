// The noise of a token (`Noise` in src/contrast.rs): Philox4x32-10 (Salmon et al. 2011), and Gumbel draws from its bits.
#pragma once

#include "prelude.cuh"

// The bits of four tokens, id % 4 by id % 4.
struct NoiseBits {
    u32 of[4];
};

// The bits of the tokens 4 * quad, ... 4 * quad + 3 as candidates for `position`.
DEVICE NoiseBits noise_bits(u32 quad, u32 position, const u32 (&record)[2], const u32 (&seed)[2]) {
    u32 counter[4] = {quad, position, record[0], record[1]};
    u32 key[2] = {seed[0], seed[1]};
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

// -ln(-ln u) with u = (bits + 1/2) / 2^32.
DEVICE double gumbel(u32 bits) { return -log(-log((double(bits) + 0.5) * 0x1p-32)); }

// The same within 5e-5, with two logarithms of the special function unit.
DEVICE float gumbel_nearly(u32 bits) {
    // u itself would round to 1: near there, -ln u is the series of its complement.
    const float complement = (float(~bits) + 0.5f) * 0x1p-32f;
    const float series = complement * (1.0f + complement * (0.5f + complement * (0.33333333f + complement * 0.25f)));
    const float u = complement > 0.5f ? (float(bits) + 0.5f) * 0x1p-32f : 1.0f - complement;
    return -__logf(complement < 0x1p-6f ? series : -__logf(u));
}

// No less than gumbel(bits), without a logarithm: -ln(-ln u) <= -ln(1 - u), and the leading zeros of 1 - u bound that.
DEVICE double gumbel_bound(u32 bits) { return double(__clz(i32(~bits)) + 1) * 0.6931471806 + 1e-9; }
