// Tensor cores: PTX ISA, "ldmatrix", "stmatrix" and "mma". All 32 lanes take part.
#include <type_traits>

#include "memory.h"
#include "narrow.h"

namespace ptx {
namespace {

// Eight rows of eight 16-bit numbers.
struct Matrix {
    u16 at[8][8];
};

// The row of which lane 8 m + i passes the address: row i of matrix m.
u8* row(Warp& warp, const Instruction& at, const u64 addresses[32], u32 matrix, u32 i) {
    const u32 lane = 8 * matrix + i;
    return locate(warp, at, lane, Space::shared, addresses[lane], 16);
}

// Lane l holds the numbers 2 (l mod 4) and the next of row l / 4, or of the column if the matrix is
// transposed.
template <u32 COUNT, bool TRANSPOSES>
void run_ldmatrix(Warp& warp, const Instruction& at, u32) {
    u64 addresses[32];
    addresses_of(warp, at, COUNT, 0, addresses);
    for (u32 m = 0; m < COUNT; ++m) {
        Matrix matrix;
        for (u32 i = 0; i < 8; ++i) std::memcpy(matrix.at[i], row(warp, at, addresses, m, i), 16);
        u32* const to = warp.lanes_of<u32>(at.operands[m]);
        for (u32 lane = 0; lane < 32; ++lane) {
            const u32 i = lane / 4, j = lane % 4 * 2;
            to[lane] = TRANSPOSES ? matrix.at[j][i] | u32(matrix.at[j + 1][i]) << 16
                                  : matrix.at[i][j] | u32(matrix.at[i][j + 1]) << 16;
        }
    }
}

template <u32 COUNT, bool TRANSPOSES>
void run_stmatrix(Warp& warp, const Instruction& at, u32) {
    u64 addresses[32];
    addresses_of(warp, at, 0, 0, addresses);
    for (u32 m = 0; m < COUNT; ++m) {
        Matrix matrix;
        const u32* const from = warp.lanes_of<u32>(at.operands[1 + m]);
        for (u32 lane = 0; lane < 32; ++lane) {
            const u32 i = lane / 4, j = lane % 4 * 2;
            (TRANSPOSES ? matrix.at[j][i] : matrix.at[i][j]) = u16(from[lane]);
            (TRANSPOSES ? matrix.at[j + 1][i] : matrix.at[i][j + 1]) = u16(from[lane] >> 16);
        }
        for (u32 i = 0; i < 8; ++i) std::memcpy(row(warp, at, addresses, m, i), matrix.at[i], 16);
    }
}

Form of_full_warp(Execute execute) {
    Form form{execute, {}, {}};
    form.kind = Kind::collective;
    return form;
}

// The modifiers of ldmatrix and stmatrix: how many matrices, as 0, 1 or 2 for 1, 2 or 4, and whether
// transposed.
struct Tiles {
    std::optional<size_t> count;
    bool transposes;
};

Tiles take_tiles(Opcode& opcode) {
    const bool is_aligned = opcode.take("sync") && opcode.take("aligned");
    const bool has_shape = opcode.take("m8n8");
    const auto count = opcode.take_one({"x1", "x2", "x4"});
    const bool transposes = opcode.take("trans");
    const auto space = opcode.take_one({"shared", "shared::cta"});
    const bool has_type = opcode.take_type() == Type::b16;
    if (!is_aligned || !has_shape || !space || !has_type) return {};
    return {count, transposes};
}

// Matrix products. An instruction multiplies a, [16, K] in rows, with b, [K, 8] in columns, and adds c, [16,
// 8].

// The elements of a's and b's registers.
struct OfBf16 {
    static constexpr u32 bits = 16;
    static float value(u32 code) { return bits_as<float>(code << 16); }
};
struct OfF16 {
    static constexpr u32 bits = 16;
    static float value(u32 code) { return to_float(half{u16(code)}); }
};
struct OfTf32 {
    static constexpr u32 bits = 32;
    static float value(u32 code) { return bits_as<float>(code & 0xffffe000); }  // the other bits are not read
};
struct OfE4m3 {
    static constexpr u32 bits = 8;
    static float value(u32 code) { return float(widen(code, e4m3_format)); }
};
struct OfE5m2 {
    static constexpr u32 bits = 8;
    static float value(u32 code) { return float(widen(code, e5m2_format)); }
};

// The sums are in the order of k, from zero, and c comes last. A tensor core's order is its own.
template <u32 K>
__attribute__((always_inline)) inline void multiply(const float (&a)[16][K], const float (&b)[K][8],
                                                    float (&d)[16][8]) {
    for (u32 i = 0; i < 16; ++i) {
        float sums[8] = {};
        for (u32 k = 0; k < K; ++k)
            for (u32 j = 0; j < 8; ++j) sums[j] += a[i][k] * b[k][j];
        for (u32 j = 0; j < 8; ++j) d[i][j] = sums[j];
    }
}

// The fragments: lane l belongs to group g = l / 4 and is its t-th, t = l mod 4. A register has E elements.
// a: register r has row g, or g + 8 if r is odd, and columns E t + e of the (r / 2)-th 4 E columns.
// b: register r has column g and rows E t + e of the r-th 4 E rows.
// c and d: register r has row g, or g + 8 if r is over 1, and column 2 t + r mod 2.
template <u32 K, class A, class B>
void run_mma(Warp& warp, const Instruction& at, u32) {
    static_assert(A::bits == B::bits);
    constexpr u32 elements = 32 / A::bits, a_count = K / (2 * elements), b_count = K / (4 * elements);
    constexpr u32 code_mask = 0xffffffff >> (32 - A::bits);
    const u32 *const a_at = at.operands + 4, *const b_at = a_at + a_count, *const c_at = b_at + b_count;
    float a[16][K], b[K][8], d[16][8];
    for (u32 r = 0; r < a_count; ++r) {
        const u32* const from = warp.lanes_of<u32>(a_at[r]);
        for (u32 lane = 0; lane < 32; ++lane)
            for (u32 e = 0; e < elements; ++e)
                a[lane / 4 + r % 2 * 8][elements * (lane % 4) + e + r / 2 * 4 * elements] =
                    A::value(from[lane] >> A::bits * e & code_mask);
    }
    for (u32 r = 0; r < b_count; ++r) {
        const u32* const from = warp.lanes_of<u32>(b_at[r]);
        for (u32 lane = 0; lane < 32; ++lane)
            for (u32 e = 0; e < elements; ++e)
                b[elements * (lane % 4) + e + r * 4 * elements][lane / 4] =
                    B::value(from[lane] >> B::bits * e & code_mask);
    }
    multiply<K>(a, b, d);
    for (u32 r = 0; r < 4; ++r) {
        const float* const c = warp.lanes_of<float>(c_at[r]);
        float* const to = warp.lanes_of<float>(at.operands[r]);
        for (u32 lane = 0; lane < 32; ++lane)
            to[lane] = c[lane] + d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    }
}

Execute product_of(size_t shape, Type a, Type b) {
    constexpr size_t k4 = 0, k8 = 1, k16 = 2, k32 = 3;
    const bool are_same = a == b;
    switch (shape) {
        case k4:
            return are_same && a == Type::tf32 ? run_mma<4, OfTf32, OfTf32> : nullptr;
        case k8:
            if (!are_same) return nullptr;
            if (a == Type::bf16) return run_mma<8, OfBf16, OfBf16>;
            if (a == Type::f16) return run_mma<8, OfF16, OfF16>;
            return a == Type::tf32 ? run_mma<8, OfTf32, OfTf32> : nullptr;
        case k16:
            if (!are_same) return nullptr;
            if (a == Type::bf16) return run_mma<16, OfBf16, OfBf16>;
            return a == Type::f16 ? run_mma<16, OfF16, OfF16> : nullptr;
        case k32:
            if (a == Type::e4m3 && b == Type::e4m3) return run_mma<32, OfE4m3, OfE4m3>;
            if (a == Type::e4m3 && b == Type::e5m2) return run_mma<32, OfE4m3, OfE5m2>;
            if (a == Type::e5m2 && b == Type::e4m3) return run_mma<32, OfE5m2, OfE4m3>;
            return a == Type::e5m2 && b == Type::e5m2 ? run_mma<32, OfE5m2, OfE5m2> : nullptr;
    }
    return nullptr;
}

}  // namespace

Form ldmatrix(Opcode& opcode, const Statement&) {
    const Tiles tiles = take_tiles(opcode);
    if (!tiles.count) return {};
    constexpr Execute all[2][3] = {{run_ldmatrix<1, false>, run_ldmatrix<2, false>, run_ldmatrix<4, false>},
                                   {run_ldmatrix<1, true>, run_ldmatrix<2, true>, run_ldmatrix<4, true>}};
    Form form = of_full_warp(all[tiles.transposes][*tiles.count]);
    form.destinations.assign(size_t(1) << *tiles.count, Type::b32);
    form.sources = {address};
    return form;
}

Form stmatrix(Opcode& opcode, const Statement&) {
    const Tiles tiles = take_tiles(opcode);
    if (!tiles.count) return {};
    constexpr Execute all[2][3] = {{run_stmatrix<1, false>, run_stmatrix<2, false>, run_stmatrix<4, false>},
                                   {run_stmatrix<1, true>, run_stmatrix<2, true>, run_stmatrix<4, true>}};
    Form form = of_full_warp(all[tiles.transposes][*tiles.count]);
    form.sources = {address};
    form.sources.insert(form.sources.end(), size_t(1) << *tiles.count, Type::b32);
    return form;
}

Form mma(Opcode& opcode, const Statement&) {
    const bool is_aligned = opcode.take("sync") && opcode.take("aligned");
    const auto shape = opcode.take_one({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32"});
    const bool has_order = opcode.take("row") && opcode.take("col");
    opcode.take("kind::f8f6f4");
    const auto d = opcode.take_type(), a = opcode.take_type(), b = opcode.take_type(), c = opcode.take_type();
    if (!is_aligned || !shape || !has_order || d != Type::f32 || !a || !b || c != Type::f32) return {};
    Form form = of_full_warp(product_of(*shape, *a, *b));
    const u32 k = 4u << *shape, elements = 4 / size_of(*a);
    form.destinations.assign(4, Type::f32);
    form.sources.assign(k / (2 * elements) + k / (4 * elements), Type::b32);
    form.sources.insert(form.sources.end(), 4, Type::f32);
    return form;
}

}  // namespace ptx
