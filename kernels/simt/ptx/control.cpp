// Instructions that end a thread or do nothing: PTX ISA, "Control Flow Instructions" and "Miscellaneous
// Instructions". The builder sees to branches.
#include "form.h"
#include "warp.h"

namespace ptx {

// A kernel calls nothing, so `ret` is `exit`.
Form exit(Opcode& opcode, const Statement&) {
    opcode.take("uni");
    return {nullptr, {}, {}, 0, Kind::exit};
}

Form trap(Opcode&, const Statement&) {
    return {
        [](Warp& warp, const Instruction& at, u32 lanes) { fault(warp, at, lowest(lanes), "trap"); }, {}, {}};
}

// griddepcontrol orders a launch after the one before it, which has ended here. nanosleep only waits.
Form nothing(Opcode& opcode, const Statement& statement) {
    if (opcode.name() == "griddepcontrol" && !opcode.take_one({"wait", "launch_dependents"})) return {};
    if (opcode.name() == "nanosleep") opcode.take_type();
    Form form{[](Warp&, const Instruction&, u32) {}, {}, {}};
    form.sources.assign(statement.operands.size(), Type::u32);
    return form;
}

}  // namespace ptx
