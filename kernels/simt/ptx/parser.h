// Reads a file of PTX, token by token.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "lexer.h"
#include "syntax.h"

namespace ptx {

class Parser {
public:
    Parser(const std::string& text, const std::string& file) : file(file), all(tokens(text, file)) {}

    File run();

private:
    // The module.
    void directive();
    void entry();
    void parameter();
    void attribute();
    // A variable, from its alignment on.
    Variable variable();
    std::vector<u8> initializer(u32 width);

    // The body of an entry.
    void body();
    void registers();
    void label();
    void branch_targets();
    void statement();
    Operand operand();
    Operand simple_operand();
    Operand immediate(bool is_minus);
    Operand bracketed();
    Operand braced();

    const Token& next() const { return all[at]; }
    Token take();
    bool take_if(std::string_view text);
    void expect(std::string_view text);
    std::string word(const char* what);
    u64 integer(const char* what);
    Type type();
    size_t alignment();
    size_t size();
    [[noreturn]] void refuse_next(const std::string& what) const;

    const std::string& file;
    const std::vector<Token> all;
    size_t at = 0;
    File module;
    Entry* now = nullptr;
    // The registers' ids by name, of each open brace.
    std::vector<std::unordered_map<std::string, u32>> scopes;
};

}  // namespace ptx
