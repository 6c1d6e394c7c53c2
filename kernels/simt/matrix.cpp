#include "matrix.h"

#include <cstring>

#include "block.h"
#include "number.h"

namespace simt {
namespace {

struct LoadMatrix {
    u32* registers;
    const void* row;
};

// The register of lane l for a matrix holds the elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4, or of
// column l / 4 if it is transposed. The first element is in the low half.
template <u32 MATRICES, bool TRANSPOSED>
void complete_ldmatrix(void* const operands[32], u32) {
    for (u32 m = 0; m < MATRICES; ++m) {
        u16 matrix[8][8];
        for (u32 i = 0; i < 8; ++i)
            std::memcpy(matrix[i], static_cast<const LoadMatrix*>(operands[8 * m + i])->row,
                        sizeof matrix[i]);
        for (u32 lane = 0; lane < 32; ++lane) {
            const u32 i = lane / 4, j = lane % 4 * 2;
            const u16 lo = TRANSPOSED ? matrix[j][i] : matrix[i][j];
            const u16 hi = TRANSPOSED ? matrix[j + 1][i] : matrix[i][j + 1];
            static_cast<const LoadMatrix*>(operands[lane])->registers[m] = lo | u32(hi) << 16;
        }
    }
}

constexpr Collective ldmatrix_x2{"ldmatrix_x2", complete_ldmatrix<2, false>};
constexpr Collective ldmatrix_x4{"ldmatrix_x4", complete_ldmatrix<4, false>};
constexpr Collective ldmatrix_x2_trans{"ldmatrix_x2_trans", complete_ldmatrix<2, true>};
constexpr Collective ldmatrix_x4_trans{"ldmatrix_x4_trans", complete_ldmatrix<4, true>};

struct Mma {
    float* d;
    const u32* a;
    const u32* b;
};

float low(u32 pair) { return __uint_as_float(pair << 16); }
float high(u32 pair) { return __uint_as_float(pair & 0xffff0000); }

void complete_mma(void* const operands[32], u32) {
    float a[16][16], b[16][8];
    for (u32 lane = 0; lane < 32; ++lane) {
        const Mma& mine = *static_cast<const Mma*>(operands[lane]);
        const u32 group = lane / 4, pair = lane % 4 * 2;
        // The registers of a alternate between rows `group` and `group` + 8, first in the left half of the
        // columns, then in the right half.
        for (u32 r = 0; r < 4; ++r) {
            const u32 row = group + r % 2 * 8, column = pair + r / 2 * 8;
            a[row][column] = low(mine.a[r]);
            a[row][column + 1] = high(mine.a[r]);
        }
        // The registers of b hold the upper half of the rows, then the lower half.
        for (u32 r = 0; r < 2; ++r) {
            b[pair + r * 8][group] = low(mine.b[r]);
            b[pair + r * 8 + 1][group] = high(mine.b[r]);
        }
    }
    float d[16][8] = {};
    for (u32 row = 0; row < 16; ++row)
        for (u32 k = 0; k < 16; ++k)
            for (u32 column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (u32 lane = 0; lane < 32; ++lane) {
        const Mma& mine = *static_cast<const Mma*>(operands[lane]);
        const u32 group = lane / 4, pair = lane % 4 * 2;
        for (u32 r = 0; r < 4; ++r) mine.d[r] += d[group + r / 2 * 8][pair + r % 2];
    }
}

constexpr Collective mma{"mma_bf16", complete_mma};

}  // namespace

void ldmatrix(u32* registers, const void* row, u32 matrices, bool transposed) {
    const Collective& kind = matrices == 4 ? (transposed ? ldmatrix_x4_trans : ldmatrix_x4)
                                           : (transposed ? ldmatrix_x2_trans : ldmatrix_x2);
    if (thread->lane < 8 * matrices) block->check_shared(row, 16, kind.name);
    LoadMatrix operands{registers, row};
    meet(kind, all_lanes, &operands);
}

void mma_m16n8k16(float* d, const u32* a, const u32* b) {
    Mma operands{d, a, b};
    meet(mma, all_lanes, &operands);
}

}  // namespace simt
