// Turns one entry of a file into a kernel: chooses what executes each statement, and gives each register and
// each number a place in the warp's file.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "form.h"
#include "program.h"
#include "syntax.h"

namespace ptx {

class Builder {
public:
    // `globals` has the addresses of the file's variables of .global and .const. PRECOND: all of these
    // outlive this.
    Builder(const File& module, const Entry& entry, const std::map<std::string, u64>& globals,
            const std::string& file);

    Kernel run();

private:
    // An instruction whose operands are registers by number.
    struct Draft {
        Instruction instruction;
        std::vector<u32> operands;
        size_t destinations = 0;  // the first of the operands
        u32 guard = 0, mask = 0;
        std::string target;  // of a branch
    };

    void lay_out_variables();
    static size_t place(const std::vector<Variable>& variables, u64 window,
                        std::map<std::string, u64>& addresses, size_t from);

    void translate(const Statement& statement);
    void translate_branch(const Statement& statement, Draft draft);
    void bind(const Statement& statement, const Form& form, Draft& draft, std::vector<Draft>& after);
    void bind_address(const Operand& operand, size_t number, Draft& draft);
    u32 source(const Operand& operand, Type type, bool is_relaxed);
    u32 destination(const Operand& operand, Type type, bool is_relaxed, Draft& draft,
                    std::vector<Draft>& after);
    u32 symbol(const std::string& name, Type type);
    u32 constant(u64 bits, u32 width);
    u32 temporary(u32 width);
    Draft conversion(u32 to, u32 from, bool is_signed) const;

    void resolve_targets(Kernel& kernel);
    void place_registers(Kernel& kernel);
    [[noreturn]] void refuse_now(const std::string& what) const;

    const File& module;
    const Entry& entry;
    const std::string& file;
    u32 line = 0;

    // By the number of a register: bytes of a lane, or 0 for a predicate.
    std::vector<u32> widths;
    std::map<std::pair<u64, u32>, u32> constants;  // (bits, width) to register
    std::map<std::string, u32> specials;           // name to register
    std::map<std::string, u64> addresses;          // of variables and parameters

    std::vector<Draft> drafts;
    std::vector<size_t> begins;  // the first instruction of each statement
    size_t params_bytes = 0, shared_bytes = 0, local_bytes = 0;
};

}  // namespace ptx
