// Moves, packing and unpacking, and addresses: PTX ISA, "Data Movement and Conversion Instructions".
#include "each.h"
#include "resize.h"

namespace ptx {
namespace {

// Packs `count` elements into one wider register, the first one lowest.
template <class Whole, class Part>
void pack(Warp& warp, const Instruction& at, u32 lanes) {
    constexpr u32 count = sizeof(Whole) / sizeof(Part);
    Whole* const to = warp.lanes_of<Whole>(at.operands[0]);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        Whole made = 0;
        for (u32 i = 0; i < count; ++i)
            made |= Whole(warp.lanes_of<Part>(at.operands[1 + i])[lane]) << 8 * sizeof(Part) * i;
        to[lane] = made;
    }
}

template <class Whole, class Part>
void unpack(Warp& warp, const Instruction& at, u32 lanes) {
    constexpr u32 count = sizeof(Whole) / sizeof(Part);
    const Whole* const from = warp.lanes_of<Whole>(at.operands[count]);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        const Whole whole = from[lane];
        for (u32 i = 0; i < count; ++i)
            warp.lanes_of<Part>(at.operands[i])[lane] = Part(whole >> 8 * sizeof(Part) * i);
    }
}

size_t parts_of(const Operand& operand) { return operand.kind == Operand::vector ? operand.parts.size() : 0; }

Execute packing(u32 size, size_t parts, bool is_pack) {
    if (size == 4 && parts == 2) return is_pack ? pack<u32, u16> : unpack<u32, u16>;
    if (size == 8 && parts == 2) return is_pack ? pack<u64, u32> : unpack<u64, u32>;
    if (size == 8 && parts == 4) return is_pack ? pack<u64, u16> : unpack<u64, u16>;
    return nullptr;
}

Type part_type(u32 size, size_t parts) { return size / parts == 2 ? Type::b16 : Type::b32; }

Execute copy_of(Type type) {
    if (type == Type::pred)
        return [](Warp& warp, const Instruction& at, u32 lanes) {
            warp.set_predicate(at.operands[0], lanes, warp.predicate(at.operands[1]));
        };
    switch (size_of(type)) {
        case 2:
            return each<u16, u16>([](u16 x) { return x; });
        case 4:
            return each<u32, u32>([](u32 x) { return x; });
        case 8:
            return each<u64, u64>([](u64 x) { return x; });
        default:
            return nullptr;
    }
}

template <class D, class S>
Execute extension(bool is_signed) {
    if (sizeof(D) <= sizeof(S) || !is_signed) return each<D, S>([](S x) { return D(x); });
    return each<D, S>([](S x) { return D(std::make_signed_t<D>(std::make_signed_t<S>(x))); });
}

}  // namespace

Execute resize(u32 to, u32 from, bool is_signed) {
    if (to == 2) return from == 4 ? extension<u16, u32>(is_signed) : extension<u16, u64>(is_signed);
    if (to == 4) return from == 2 ? extension<u32, u16>(is_signed) : extension<u32, u64>(is_signed);
    return from == 2 ? extension<u64, u16>(is_signed) : extension<u64, u32>(is_signed);
}

void invert_predicate(Warp& warp, const Instruction& at, u32 lanes) {
    warp.set_predicate(at.operands[0], lanes, ~warp.predicate(at.operands[1]));
}

Form mov(Opcode& opcode, const Statement& statement) {
    const Type type = opcode.take_type().value_or(Type::u8);
    if (statement.operands.size() != 2) return {copy_of(type), {type}, {type}};
    const u32 size = size_of(type);
    if (const size_t parts = parts_of(statement.operands[1])) {
        Form form{packing(size, parts, true), {type}, {}};
        form.sources.assign(parts, part_type(size, parts));
        return form;
    }
    if (const size_t parts = parts_of(statement.operands[0])) {
        Form form{packing(size, parts, false), {}, {type}};
        form.destinations.assign(parts, part_type(size, parts));
        return form;
    }
    return {copy_of(type), {type}, {type}};
}

// To and from generic addresses. Those of global memory are the same in both forms.
Form cvta(Opcode& opcode, const Statement&) {
    const bool is_to = opcode.take("to");
    const auto space = opcode.take_one({"global", "const", "shared", "local", "param", "shared::cta"});
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!space || type != Type::u64) return {};
    constexpr u64 windows[] = {0, 0, shared_window, local_window, param_window, shared_window};
    Form form{[](Warp& warp, const Instruction& at, u32 lanes) {
                  u64* const to = warp.lanes_of<u64>(at.operands[0]);
                  const u64* const from = warp.lanes_of<u64>(at.operands[1]);
                  for (u32 left = lanes; left; left &= left - 1) {
                      const u32 lane = lowest(left);
                      to[lane] = from[lane] + at.immediate;
                  }
              },
              {type},
              {type}};
    form.immediate = is_to ? -windows[*space] : windows[*space];
    return form;
}

}  // namespace ptx
