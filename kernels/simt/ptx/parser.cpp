#include "parser.h"

#include <algorithm>
#include <cstdlib>

namespace ptx {
namespace {

// More than any kernel has, so that a damaged file does not take all memory.
constexpr u64 most_registers = 1 << 17, most_bytes = 1 << 24, most_alignment = 1 << 10;

}  // namespace

File parse(const std::string& text, const std::string& file) { return Parser(text, file).run(); }

File Parser::run() {
    if (!next().is(".version")) refuse_next("a file of PTX begins with .version");
    while (next().kind != Token::end) directive();
    return std::move(module);
}

// Tokens.

Token Parser::take() {
    const Token token = next();
    if (token.kind != Token::end) ++at;
    return token;
}

bool Parser::take_if(std::string_view text) {
    const bool is_it = next().is(text);
    if (is_it) take();
    return is_it;
}

void Parser::expect(std::string_view text) {
    if (!take_if(text)) refuse_next("expected '" + std::string(text) + "'");
}

std::string Parser::word(const char* what) {
    if (next().kind != Token::word) refuse_next(std::string("expected ") + what);
    return std::string(take().text);
}

u64 Parser::integer(const char* what) {
    if (next().kind != Token::number) refuse_next(std::string("expected ") + what);
    const Operand found = immediate(false);
    if (found.kind != Operand::integer) refuse_next(std::string("expected ") + what);
    return found.bits;
}

Type Parser::type() {
    const Token token = next();
    const auto found =
        token.text.empty() || token.text[0] != '.' ? std::nullopt : type_named(token.text.substr(1));
    if (!found) refuse_next("expected a type such as .b32");
    take();
    return *found;
}

void Parser::refuse_next(const std::string& what) const {
    refuse({&file, next().line}, what + ", not '" + std::string(next().text) + "'");
}

size_t Parser::alignment() {
    const u64 bytes = integer("an alignment");
    if (!bytes || bytes & (bytes - 1) || bytes > most_alignment) refuse_next("an alignment that cannot be");
    return bytes;
}

size_t Parser::size() {
    const u64 elements = integer("a size");
    if (elements > most_bytes) refuse_next("a variable that is too large");
    return elements;
}

// The module.

void Parser::directive() {
    if (next().is(".version") || next().is(".target") || next().is(".address_size")) {
        take();
        do take();
        while (take_if(","));
        return;
    }
    while (take_if(".extern") || take_if(".visible") || take_if(".weak") || take_if(".common")) {
    }
    if (take_if(".entry")) return entry();
    if (take_if(".shared")) {
        module.shared.push_back(variable());
    } else if (take_if(".global") || take_if(".const")) {
        module.global.push_back(variable());
    } else {
        refuse_next(next().is(".func") ? "functions that are called are not implemented"
                                       : "this directive is not known");
    }
}

void Parser::entry() {
    module.entries.emplace_back();
    now = &module.entries.back();
    now->line = next().line;
    now->name = word("the name of a kernel");
    if (take_if("(") && !take_if(")")) {
        do parameter();
        while (take_if(","));
        expect(")");
    }
    while (!next().is("{")) attribute();
    body();
    now = nullptr;
}

void Parser::parameter() {
    expect(".param");
    Variable param{};
    if (take_if(".align")) param.alignment = alignment();
    const size_t width = size_of(type());
    // An attribute of a pointer, which says what the kernel's author promises.
    while (take_if(".ptr") || take_if(".global") || take_if(".shared") || take_if(".align"))
        if (next().kind == Token::number) take();
    param.name = word("the name of a parameter");
    param.bytes = width;
    if (take_if("[")) {
        param.bytes *= size();
        expect("]");
    }
    param.alignment = std::max(param.alignment, width);
    now->params.push_back(param);
}

// A performance directive, such as .maxntid 128, 1, 1.
void Parser::attribute() {
    const std::string name = word("a directive or '{'");
    if (name != ".maxntid" && name != ".reqntid" && name != ".minnctapersm" && name != ".maxnreg" &&
        name != ".maxnctapersm" && name != ".pragma")
        refuse({&file, next().line}, "the directive " + name + " of a kernel is not implemented");
    u64 product = 1;
    do {
        if (next().kind == Token::string) {
            take();
        } else {
            product *= integer("a number");
        }
    } while (take_if(","));
    if (name == ".maxntid" || name == ".reqntid") now->max_threads = u32(std::min<u64>(product, 1024));
    take_if(";");
}

Variable Parser::variable() {
    Variable made{};
    if (take_if(".align")) made.alignment = alignment();
    const u32 width = size_of(type());
    made.name = word("the name of a variable");
    made.bytes = width;
    while (take_if("[")) {
        made.bytes = next().is("]") ? 0 : made.bytes * size();  // the launch says how large it is
        if (made.bytes > most_bytes) refuse_next("a variable that is too large");
        expect("]");
    }
    made.alignment = std::max<size_t>(made.alignment, width);
    if (take_if("=")) made.contents = initializer(width);
    made.contents.resize(made.bytes);
    expect(";");
    return made;
}

std::vector<u8> Parser::initializer(u32 width) {
    std::vector<u8> bytes;
    const bool is_list = take_if("{");
    do {
        const bool is_minus = take_if("-");
        if (next().kind != Token::number) refuse_next("expected a number");
        const u64 bits = immediate(is_minus).bits;
        for (u32 i = 0; i < width; ++i) bytes.push_back(u8(bits >> 8 * i));
    } while (is_list && take_if(","));
    if (is_list) expect("}");
    return bytes;
}

// The body of an entry.

void Parser::body() {
    expect("{");
    scopes.emplace_back();
    while (!scopes.empty()) {
        if (next().kind == Token::end) refuse_next("the kernel " + now->name + " has no end");
        if (take_if("{")) {
            scopes.emplace_back();
        } else if (take_if("}")) {
            scopes.pop_back();
        } else if (take_if(".reg")) {
            registers();
        } else if (take_if(".local")) {
            now->local.push_back(variable());
        } else if (take_if(".shared")) {
            now->shared.push_back(variable());
        } else if (take_if(".pragma") || take_if(".loc") || take_if(".file")) {
            // .loc and .file end with their line.
            const u32 line = next().line;
            while (next().line == line && next().kind != Token::end && !take_if(";")) take();
        } else if (next().kind == Token::word && all[at + 1].is(":")) {
            label();
        } else {
            statement();
        }
    }
}

// .reg .b32 %a, %b; or .reg .b32 %r<5>; for %r0 to %r4.
void Parser::registers() {
    const Type of = type();
    const auto declare = [&](const std::string& name) {
        scopes.back()[name] = u32(now->registers.size());
        now->registers.push_back(of);
    };
    do {
        const std::string name = word("the name of a register");
        if (take_if("<")) {
            const u64 count = integer("a number of registers");
            if (count > most_registers) refuse_next("too many registers");
            for (u64 i = 0; i < count; ++i) declare(name + std::to_string(i));
            expect(">");
        } else {
            declare(name);
        }
    } while (take_if(","));
    expect(";");
}

void Parser::label() {
    const u32 line = next().line;
    const std::string name = word("a label");
    expect(":");
    if (next().is(".branchtargets")) {
        take();
        std::vector<std::string>& targets = now->branch_targets[name];
        do targets.push_back(word("a label"));
        while (take_if(","));
        expect(";");
    } else if (!now->labels.emplace(name, now->statements.size()).second) {
        refuse({&file, line}, "the label " + name + " is there twice");
    }
}

void Parser::statement() {
    Statement made{next().line, {}, {}};
    if (take_if("@")) {
        const bool is_negated = take_if("!");
        made.is_guarded = true;
        made.guard = simple_operand();
        if (made.guard.kind != Operand::reg || now->registers[made.guard.id] != Type::pred)
            refuse_next("expected a predicate after '@'");
        made.guard.is_negated = is_negated;
    }
    if (next().kind != Token::word || next().text[0] == '.' || next().text[0] == '%')
        refuse_next("expected an instruction");
    made.opcode = word("an instruction");
    if (next().is("("))
        refuse_next("'" + made.opcode + "' of a function is not implemented: expected an operand");
    if (!next().is(";")) {
        do made.operands.push_back(operand());
        while (take_if(","));
    }
    expect(";");
    now->statements.push_back(std::move(made));
}

Operand Parser::operand() {
    if (take_if("[")) return bracketed();
    if (take_if("{")) return braced();
    const Operand first = simple_operand();
    if (!take_if("|")) return first;
    Operand both{Operand::vector};
    both.parts = {first, simple_operand()};
    return both;
}

Operand Parser::bracketed() {
    Operand made{Operand::address};
    made.parts.push_back(simple_operand());
    if (take_if("+")) {
        const bool is_minus = take_if("-");
        const u64 offset = integer("an offset");
        made.bits = is_minus ? -offset : offset;
    }
    expect("]");
    return made;
}

Operand Parser::braced() {
    Operand made{Operand::vector};
    do made.parts.push_back(simple_operand());
    while (take_if(","));
    expect("}");
    return made;
}

Operand Parser::simple_operand() {
    const bool is_negated = take_if("!");
    const bool is_minus = take_if("-");
    if (next().kind == Token::number) return immediate(is_minus);
    if (is_minus || next().kind != Token::word) refuse_next("expected an operand");
    Operand made{Operand::symbol};
    made.name = take().text;
    if (made.name == "_") {
        made.kind = Operand::sink;
        return made;
    }
    for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
        const auto found = scope->find(made.name);
        if (found == scope->end()) continue;
        made.kind = Operand::reg;
        made.id = found->second;
        made.is_negated = is_negated;
        break;
    }
    return made;
}

// 5, 0x1f, 0b101, 017, 5U, 0f3F800000, 0d3FF0000000000000, or a decimal such as 0.5, which is an f64.
Operand Parser::immediate(bool is_minus) {
    const std::string text(take().text);
    const auto begins = [&](char kind) {
        return text.size() > 1 && text[0] == '0' && (text[1] | 32) == kind;
    };
    Operand made{Operand::integer};
    char* end = nullptr;
    if ((begins('f') && text.size() == 10) || (begins('d') && text.size() == 18)) {
        made.kind = begins('f') ? Operand::single : Operand::real;
        made.bits = std::strtoull(text.c_str() + 2, &end, 16);
    } else if (text.find('.') != text.npos) {
        made.kind = Operand::real;
        made.bits = bits_as<u64>(std::strtod(text.c_str(), &end));
    } else {
        made.bits =
            begins('b') ? std::strtoull(text.c_str() + 2, &end, 2) : std::strtoull(text.c_str(), &end, 0);
        if (*end == 'U') ++end;
    }
    if (*end) refuse({&file, all[at - 1].line}, "'" + text + "' is not a number");
    if (is_minus) {
        switch (made.kind) {
            case Operand::integer:
                made.bits = -made.bits;
                break;
            case Operand::single:
                made.bits ^= 1u << 31;
                break;
            default:
                made.bits ^= u64(1) << 63;
        }
    }
    return made;
}

}  // namespace ptx
