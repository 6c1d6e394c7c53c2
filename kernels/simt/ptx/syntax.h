// The parts of a file of PTX that matter to its execution, with the names of registers resolved.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "error.h"
#include "types.h"

namespace ptx {

struct Operand {
    enum Kind {
        reg,      // `id` of a register
        sink,     // '_', a destination that is thrown away
        integer,  // `bits`
        single,   // `bits` of an f32
        real,     // `bits` of an f64
        symbol,   // `name` of a variable, a label, a parameter or a special register such as %tid.x
        vector,   // `parts` in braces, or a destination and its predicate, "d|p"
        address,  // [parts[0] + bits]
    };
    Kind kind;
    u32 id = 0;
    u64 bits = 0;
    std::string name = {};
    std::vector<Operand> parts = {};
    bool is_negated = false;  // !p
};

struct Statement {
    u32 line;
    std::string opcode;
    std::vector<Operand> operands;
    // Whether only lanes run this whose predicate, a register, is true (or false, if `is_negated`).
    bool is_guarded = false;
    Operand guard = {Operand::sink};
};

// A variable in one of the state spaces, or a parameter.
struct Variable {
    std::string name;
    size_t bytes, alignment;
    std::vector<u8> contents;  // of .global and .const; zeros if it has no initializer
};

struct Entry {
    std::string name;
    u32 line;
    u32 max_threads = 1024;
    std::vector<Variable> params, shared, local;
    std::vector<Type> registers;  // by id
    std::vector<Statement> statements;
    std::map<std::string, size_t> labels;  // the index of the statement that follows
    std::map<std::string, std::vector<std::string>> branch_targets;  // the labels of brx.idx
};

struct File {
    std::vector<Variable> shared, global;
    std::vector<Entry> entries;
};

// Reads the text of `file`. Throws Error.
File parse(const std::string& text, const std::string& file);

}  // namespace ptx
