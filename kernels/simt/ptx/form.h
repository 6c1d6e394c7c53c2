// What a decoder says of an opcode: what executes it, and which operands it takes.
#pragma once

#include <vector>

#include "opcode.h"
#include "program.h"
#include "syntax.h"

namespace ptx {

struct Form {
    Execute execute = nullptr;  // null: the opcode is not implemented for its types
    // The types of its registers, in the order in which they are written.
    std::vector<Type> destinations, sources;
    u64 immediate = 0;
    Kind kind = Kind::plain;
    // Whether registers may be wider than their types: PTX ISA, "Operand Size Exceeding Instruction-Type
    // Size".
    bool is_relaxed = false;
    // Of a collective: which of the sources names the lanes; -1 if it is all lanes of a full warp.
    int mask = -1;
};

// Stands among the sources for an address in brackets.
constexpr Type address = Type::b64;

// A decoder reads all modifiers of an opcode that it knows. The builder refuses what is left.
using Decode = Form (*)(Opcode& opcode, const Statement& statement);

// The decoder for opcodes of this name, or null.
Decode decoder_of(std::string_view name);

// The decoders, by family. Each file has the instructions of one of them.

// integer.cpp; its arithmetic passes floating-point types on to float.cpp.
Form add(Opcode&, const Statement&), sub(Opcode&, const Statement&), mul(Opcode&, const Statement&);
Form mad(Opcode&, const Statement&), division(Opcode&, const Statement&), rem(Opcode&, const Statement&);
Form minimum(Opcode&, const Statement&), maximum(Opcode&, const Statement&);
Form absolute(Opcode&, const Statement&), negate(Opcode&, const Statement&);
Form sad(Opcode&, const Statement&);

// bits.cpp
Form bitwise_and(Opcode&, const Statement&), bitwise_or(Opcode&, const Statement&);
Form bitwise_xor(Opcode&, const Statement&), bitwise_not(Opcode&, const Statement&);
Form cnot(Opcode&, const Statement&), lop3(Opcode&, const Statement&);
Form shl(Opcode&, const Statement&), shr(Opcode&, const Statement&), shf(Opcode&, const Statement&);
Form popc(Opcode&, const Statement&), clz(Opcode&, const Statement&), brev(Opcode&, const Statement&);
Form bfind(Opcode&, const Statement&), bfe(Opcode&, const Statement&), bfi(Opcode&, const Statement&);
Form prmt(Opcode&, const Statement&);

// float.cpp, of f32 and f64; it passes 16-bit types on to half.cpp.
Form float_add(Opcode&, Type), float_sub(Opcode&, Type), float_mul(Opcode&, Type), float_div(Opcode&, Type);
Form float_min(Opcode&, Type), float_max(Opcode&, Type), float_abs(Opcode&, Type), float_neg(Opcode&, Type);
Form fma(Opcode&, const Statement&), reciprocal(Opcode&, const Statement&);
Form square_root(Opcode&, const Statement&), reciprocal_root(Opcode&, const Statement&);
Form exponential(Opcode&, const Statement&), logarithm(Opcode&, const Statement&);
Form sine(Opcode&, const Statement&), cosine(Opcode&, const Statement&), tangent(Opcode&, const Statement&);
Form copysign(Opcode&, const Statement&), testp(Opcode&, const Statement&);

// half.cpp
enum class HalfOperation : u8 { add, sub, mul, fma, min, max, abs, neg, exponential };
Form half_arithmetic(HalfOperation operation, Opcode&, Type);

// compare.cpp
Form setp(Opcode&, const Statement&), set(Opcode&, const Statement&), selp(Opcode&, const Statement&);

// convert.cpp
Form cvt(Opcode&, const Statement&);

// move.cpp
Form mov(Opcode&, const Statement&), cvta(Opcode&, const Statement&);

// memory.cpp
Form load(Opcode&, const Statement&), store(Opcode&, const Statement&), prefetch(Opcode&, const Statement&);
Form createpolicy(Opcode&, const Statement&), fence(Opcode&, const Statement&);

// atomics.cpp
Form atom(Opcode&, const Statement&), red(Opcode&, const Statement&);

// copies.cpp
Form cp(Opcode&, const Statement&);

// collectives.cpp
Form shfl(Opcode&, const Statement&), vote(Opcode&, const Statement&), match(Opcode&, const Statement&);
Form redux(Opcode&, const Statement&), activemask(Opcode&, const Statement&),
    elect(Opcode&, const Statement&);
Form bar(Opcode&, const Statement&);

// matrix.cpp
Form ldmatrix(Opcode&, const Statement&), stmatrix(Opcode&, const Statement&), mma(Opcode&, const Statement&);

// control.cpp
Form exit(Opcode&, const Statement&), trap(Opcode&, const Statement&), nothing(Opcode&, const Statement&);

}  // namespace ptx
