#include "builder.h"

#include <algorithm>

#include "registers.h"
#include "resize.h"

namespace ptx {
namespace {

constexpr struct {
    const char* name;
    Special which;
} special_registers[] = {
    {"%tid.x", Special::tid_x},
    {"%tid.y", Special::tid_y},
    {"%tid.z", Special::tid_z},
    {"%ntid.x", Special::ntid_x},
    {"%ntid.y", Special::ntid_y},
    {"%ntid.z", Special::ntid_z},
    {"%ctaid.x", Special::ctaid_x},
    {"%ctaid.y", Special::ctaid_y},
    {"%ctaid.z", Special::ctaid_z},
    {"%nctaid.x", Special::nctaid_x},
    {"%nctaid.y", Special::nctaid_y},
    {"%nctaid.z", Special::nctaid_z},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%lanemask_eq", Special::lanemask_eq},
    {"%lanemask_lt", Special::lanemask_lt},
    {"%lanemask_le", Special::lanemask_le},
    {"%lanemask_gt", Special::lanemask_gt},
    {"%lanemask_ge", Special::lanemask_ge},
    {"%clock", Special::clock},
    {"%clock64", Special::clock64},
};

std::optional<Special> special_named(const std::string& name) {
    for (const auto& each : special_registers)
        if (name == each.name) return each.which;
    return std::nullopt;
}

// Dynamic shared memory begins after the static variables.
constexpr size_t dynamic_alignment = 128;

size_t round_up(size_t bytes, size_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

// The operands one by one: those in braces and both of "d|p" count for themselves.
std::vector<const Operand*> leaves(const Statement& statement) {
    std::vector<const Operand*> found;
    for (const Operand& operand : statement.operands) {
        if (operand.kind == Operand::vector) {
            for (const Operand& part : operand.parts) found.push_back(&part);
        } else {
            found.push_back(&operand);
        }
    }
    return found;
}

// The bits of a number as an operand of this type, if it can be one.
std::optional<u64> bits_of(const Operand& number, Type type) {
    if (type == Type::pred) return number.bits ? all_lanes : 0;
    const bool is_bits = !is_float(type);
    switch (number.kind) {
        case Operand::integer:
            // A 16-bit float is written as its bits.
            return is_bits || size_of(type) == 2 || type == Type::f16x2 || type == Type::bf16x2
                       ? std::optional(number.bits)
                       : std::nullopt;
        case Operand::single:
            if (type == Type::f64) return bits_as<u64>(double(bits_as<float>(u32(number.bits))));
            return is_bits || type == Type::f32 ? std::optional(number.bits) : std::nullopt;
        case Operand::real:
            if (type == Type::f32) return bits_as<u32>(float(bits_as<double>(number.bits)));
            return is_bits || type == Type::f64 ? std::optional(number.bits) : std::nullopt;
        default:
            return std::nullopt;
    }
}

}  // namespace

Builder::Builder(const File& of, const Entry& entry, const std::map<std::string, u64>& globals,
                 const std::string& file)
    : module(of), entry(entry), file(file), addresses(globals) {
    for (const Type type : entry.registers) widths.push_back(type == Type::pred ? 0 : width_of(type));
}

Kernel Builder::run() {
    line = entry.line;
    lay_out_variables();
    for (const Statement& statement : entry.statements) {
        begins.push_back(drafts.size());
        translate(statement);
    }
    begins.push_back(drafts.size());
    Draft end;  // for a body without `ret` at its end
    end.instruction.kind = Kind::exit;
    end.instruction.line = line;
    end.guard = constant(all_lanes, 0);
    drafts.push_back(end);

    Kernel kernel{};
    kernel.name = entry.name;
    kernel.file = file;
    kernel.max_threads = entry.max_threads;
    kernel.params_bytes = params_bytes;
    kernel.static_shared_bytes = shared_bytes;
    kernel.local_bytes = local_bytes;
    resolve_targets(kernel);
    place_registers(kernel);
    return kernel;
}

void Builder::refuse_now(const std::string& what) const { refuse({&file, line}, what); }

// Variables.

// Lays variables one behind the other from `from` on. Returns where they end.
size_t Builder::place(const std::vector<Variable>& variables, u64 window,
                      std::map<std::string, u64>& addresses, size_t from) {
    for (const Variable& variable : variables) {
        from = round_up(from, std::max<size_t>(variable.alignment, 1));
        addresses[variable.name] = window + from;
        from += variable.bytes;
    }
    return from;
}

void Builder::lay_out_variables() {
    params_bytes = place(entry.params, 0, addresses, 0);
    local_bytes = round_up(place(entry.local, 0, addresses, 0), 16);
    std::vector<Variable> fixed = entry.shared, dynamic;
    for (const Variable& each : module.shared) (each.bytes ? fixed : dynamic).push_back(each);
    shared_bytes = place(fixed, 0, addresses, 0);
    if (shared_bytes) shared_bytes = round_up(shared_bytes, dynamic_alignment);
    place(dynamic, 0, addresses, shared_bytes);
}

// Statements.

void Builder::translate(const Statement& statement) {
    line = statement.line;
    Draft draft;
    draft.instruction.line = line;
    draft.guard = statement.is_guarded ? statement.guard.id : constant(all_lanes, 0);
    draft.instruction.flip = statement.guard.is_negated ? all_lanes : 0;

    Opcode opcode(statement.opcode);
    if (opcode.name() == "bra" || opcode.name() == "brx")
        return translate_branch(statement, std::move(draft));
    const Decode decode = decoder_of(opcode.name());
    if (!decode) {
        refuse_now("the instruction '" + statement.opcode +
                   "' is not implemented: kernels/simt/ptx/decoders.cpp lists those that are");
    }
    const Form form = decode(opcode, statement);
    if (!opcode.rest().empty()) {
        refuse_now("'." + std::string(opcode.rest()) + "' of '" + statement.opcode +
                   "' is not implemented: kernels/simt/ptx/decoders.cpp names its decoder");
    }
    if (!form.execute && (form.kind == Kind::plain || form.kind == Kind::collective)) {
        refuse_now("'" + statement.opcode +
                   "' is not implemented for its types: kernels/simt/ptx/decoders.cpp names its decoder");
    }
    draft.instruction.execute = form.execute;
    draft.instruction.kind = form.kind;
    draft.instruction.immediate = form.immediate;
    std::vector<Draft> after;
    bind(statement, form, draft, after);
    drafts.push_back(std::move(draft));
    drafts.insert(drafts.end(), after.begin(), after.end());
}

void Builder::translate_branch(const Statement& statement, Draft draft) {
    Opcode opcode(statement.opcode);
    const std::vector<Operand>& operands = statement.operands;
    opcode.take("uni");
    const bool is_indexed = opcode.take("idx");
    if (!opcode.rest().empty() || operands.size() != (is_indexed ? 2 : 1) ||
        operands.back().kind != Operand::symbol)
        refuse_now("'" + statement.opcode + "' is not implemented, or lacks its label");
    draft.target = operands.back().name;
    draft.instruction.kind = is_indexed ? Kind::indexed_branch : Kind::branch;
    if (is_indexed) draft.operands.push_back(source(operands[0], Type::b32, false));
    drafts.push_back(std::move(draft));
}

void Builder::bind(const Statement& statement, const Form& form, Draft& draft, std::vector<Draft>& after) {
    const std::vector<const Operand*> operands = leaves(statement);
    const size_t destinations = form.destinations.size();
    if (operands.size() != destinations + form.sources.size()) {
        refuse_now("'" + statement.opcode + "' takes " + std::to_string(destinations + form.sources.size()) +
                   " operands, not " + std::to_string(operands.size()));
    }
    draft.destinations = destinations;
    size_t brackets = 0;
    for (size_t i = 0; i < operands.size(); ++i) {
        if (i < destinations) {
            draft.operands.push_back(
                destination(*operands[i], form.destinations[i], form.is_relaxed, draft, after));
        } else if (operands[i]->kind == Operand::address) {
            bind_address(*operands[i], brackets++, draft);
        } else {
            draft.operands.push_back(source(*operands[i], form.sources[i - destinations], form.is_relaxed));
        }
    }
    if (form.kind == Kind::collective)
        draft.mask =
            form.mask < 0 ? constant(all_lanes, 4) : draft.operands[destinations + size_t(form.mask)];
}

void Builder::bind_address(const Operand& operand, size_t number, Draft& draft) {
    const Operand& base = operand.parts[0];
    if (number >= std::size(draft.instruction.offsets)) refuse_now("too many addresses");
    u32 at = 0;
    if (base.kind == Operand::reg) {
        at = base.id;
        if (widths[at] < 4) refuse_now("an address has 32 or 64 bits");
    } else if (base.kind == Operand::integer) {
        at = constant(base.bits, 8);
    } else {
        at = symbol(base.name, Type::b64);
    }
    draft.operands.push_back(at);
    draft.instruction.offsets[number] = i64(operand.bits);
    draft.instruction.are_wide[number] = widths[at] == 8;
}

u32 Builder::source(const Operand& operand, Type type, bool is_relaxed) {
    const u32 width = type == Type::pred ? 0 : width_of(type);
    switch (operand.kind) {
        case Operand::reg:
            break;
        case Operand::symbol:
            return symbol(operand.name, type);
        case Operand::integer:
        case Operand::single:
        case Operand::real: {
            const std::optional<u64> bits = bits_of(operand, type);
            if (!bits) refuse_now(std::string("a number of this kind cannot be of type .") + name_of(type));
            return constant(*bits, width);
        }
        default:
            refuse_now("an operand of this kind cannot be a source here");
    }
    u32 from = operand.id;
    if (width != widths[from]) {
        if (!is_relaxed || !width || widths[from] < width)
            refuse_now(std::string("a register that cannot hold a .") + name_of(type));
        const u32 to = temporary(width);
        drafts.push_back(conversion(to, from, is_signed(type)));
        from = to;
    }
    if (operand.is_negated) {
        if (width) refuse_now("only a predicate can be negated by '!'");
        const u32 to = temporary(0);
        Draft draft = conversion(to, from, is_signed(type));
        draft.instruction.execute = invert_predicate;
        drafts.push_back(draft);
        from = to;
    }
    return from;
}

u32 Builder::destination(const Operand& operand, Type type, bool is_relaxed, Draft& draft,
                         std::vector<Draft>& after) {
    const u32 width = type == Type::pred ? 0 : width_of(type);
    if (operand.kind == Operand::sink) return temporary(width);
    if (operand.kind != Operand::reg) refuse_now("a destination must be a register");
    const u32 to = operand.id;
    if (width == widths[to]) return to;
    if (!is_relaxed || !width || widths[to] < width)
        refuse_now(std::string("a register that cannot hold a .") + name_of(type));
    const u32 from = temporary(width);
    Draft extension = conversion(to, from, is_signed(type));
    extension.guard = draft.guard;
    extension.instruction.flip = draft.instruction.flip;
    after.push_back(extension);
    return from;
}

// Copies the value of one register to another of another width.
Builder::Draft Builder::conversion(u32 to, u32 from, bool is_signed) const {
    Draft draft;
    draft.instruction.line = line;
    draft.instruction.execute = resize(widths[to], widths[from], is_signed);
    draft.guard = constants.at({all_lanes, 0});
    draft.operands = {to, from};
    draft.destinations = 1;
    return draft;
}

// A special register, or the address of a variable.
u32 Builder::symbol(const std::string& name, Type type) {
    if (const std::optional<Special> special = special_named(name)) {
        const u32 width = *special == Special::clock64 ? 8 : 4;
        if (width_of(type) != width) refuse_now(name + " has another width");
        const auto found = specials.find(name);
        if (found != specials.end()) return found->second;
        return specials[name] = temporary(width);
    }
    const auto found = addresses.find(name);
    if (found == addresses.end())
        refuse_now("'" + name + "' is not declared, or is a special register that is not implemented");
    if (type == Type::pred || width_of(type) < 4) refuse_now("an address has 32 or 64 bits");
    return constant(found->second, width_of(type));
}

u32 Builder::constant(u64 bits, u32 width) {
    if (width == 2) bits = u16(bits);
    if (width == 4) bits = u32(bits);
    const auto [found, is_new] = constants.emplace(std::pair(bits, width), u32(widths.size()));
    if (is_new) widths.push_back(width);
    return found->second;
}

u32 Builder::temporary(u32 width) {
    widths.push_back(width);
    return u32(widths.size() - 1);
}

// The kernel.

void Builder::resolve_targets(Kernel& kernel) {
    const auto place_of = [&](const std::string& label) {
        const auto found = entry.labels.find(label);
        if (found == entry.labels.end()) refuse_now("there is no label '" + label + "'");
        return u32(begins[found->second]);
    };
    for (Draft& draft : drafts) {
        line = draft.instruction.line;
        if (draft.instruction.kind == Kind::branch) {
            draft.instruction.target = place_of(draft.target);
        } else if (draft.instruction.kind == Kind::indexed_branch) {
            const auto list = entry.branch_targets.find(draft.target);
            if (list == entry.branch_targets.end()) refuse_now("there are no targets '" + draft.target + "'");
            draft.instruction.immediate = kernel.targets.size();
            draft.instruction.target = u32(list->second.size());
            for (const std::string& label : list->second) kernel.targets.push_back(place_of(label));
        }
    }
}

void Builder::place_registers(Kernel& kernel) {
    // What keeps its number for the whole block.
    std::vector<bool> is_fixed(widths.size());
    for (const auto& [key, number] : constants) is_fixed[number] = true;
    for (const auto& [name, number] : specials) is_fixed[number] = true;

    std::vector<RegisterUse> uses;
    for (const Draft& draft : drafts) {
        RegisterUse use;
        use.reads.assign(draft.operands.begin() + ptrdiff_t(draft.destinations), draft.operands.end());
        use.writes.assign(draft.operands.begin(), draft.operands.begin() + ptrdiff_t(draft.destinations));
        use.reads.push_back(draft.guard);
        use.is_partial = draft.guard != constants.at({all_lanes, 0});
        const Instruction& at = draft.instruction;
        use.falls_through =
            at.kind != Kind::exit && at.kind != Kind::branch && at.kind != Kind::indexed_branch;
        use.falls_through |= use.is_partial;
        if (at.kind == Kind::branch) use.targets = {at.target};
        if (at.kind == Kind::indexed_branch) {
            const auto first = kernel.targets.begin() + ptrdiff_t(at.immediate);
            use.targets.assign(first, first + at.target);
        }
        uses.push_back(std::move(use));
    }
    const Placement placement = place_registers_of(uses, widths, is_fixed);
    kernel.register_bytes = placement.bytes;

    const std::vector<u32>& offsets = placement.offsets;
    for (const auto& [key, number] : constants)
        kernel.constants.push_back({offsets[number], key.second, key.first});
    for (const auto& [name, number] : specials)
        kernel.specials.push_back({offsets[number], *special_named(name)});
    size_t count = 0;
    for (const Draft& draft : drafts) count += draft.operands.size();
    kernel.operands.reserve(count);
    for (Draft& draft : drafts) {
        Instruction& made = draft.instruction;
        made.operands = kernel.operands.data() + kernel.operands.size();
        for (const u32 number : draft.operands) kernel.operands.push_back(offsets[number]);
        made.guard = offsets[draft.guard];
        if (made.kind == Kind::collective) made.mask = offsets[draft.mask];
        kernel.code.push_back(made);
    }
}

}  // namespace ptx
