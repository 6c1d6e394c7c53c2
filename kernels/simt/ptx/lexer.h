// Cuts a file of PTX into tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace ptx {

struct Token {
    enum Kind {
        word,    // an opcode with its modifiers, a directive, or a name; it may begin with '.', '%' or '$'
        number,  // begins with a digit
        string,  // with its quotes
        sign,    // one character
        end,     // of the file
    };
    Kind kind;
    std::string_view text;
    u32 line;

    bool is(std::string_view other) const { return text == other && kind != string; }
};

// The tokens of `text`, which must outlive them; the last one is the end. Comments are left out.
std::vector<Token> tokens(const std::string& text, const std::string& file);

}  // namespace ptx
