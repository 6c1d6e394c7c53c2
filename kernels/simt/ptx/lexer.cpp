#include "lexer.h"

#include <cctype>

namespace ptx {
namespace {

bool is_of_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

// The end of the word that begins at `at`. Modifiers such as .L2::128B contain two colons; one alone ends a
// label.
size_t end_of_word(std::string_view text, size_t at) {
    for (;;) {
        while (at < text.size() && is_of_word(text[at])) ++at;
        if (text.substr(at, 2) != "::") return at;
        at += 2;
    }
}

}  // namespace

std::vector<Token> tokens(const std::string& file_text, const std::string& file) {
    const std::string_view text = file_text;
    std::vector<Token> found;
    u32 line = 1;
    size_t at = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '\n') ++line;
        if (std::isspace(static_cast<unsigned char>(c))) {
            ++at;
        } else if (text.substr(at, 2) == "//") {
            at = std::min(text.find('\n', at), text.size());
        } else if (text.substr(at, 2) == "/*") {
            const size_t end = text.find("*/", at + 2);
            if (end == text.npos) refuse({&file, line}, "this comment has no end");
            for (; at < end + 2; ++at) line += text[at] == '\n';
        } else if (c == '"') {
            const size_t end = text.find('"', at + 1);
            if (end == text.npos) refuse({&file, line}, "this string has no end");
            found.push_back({Token::string, text.substr(at, end + 1 - at), line});
            at = end + 1;
        } else if (is_of_word(c)) {
            const size_t end = end_of_word(text, at);
            const bool is_number = std::isdigit(static_cast<unsigned char>(c));
            found.push_back({is_number ? Token::number : Token::word, text.substr(at, end - at), line});
            at = end;
        } else {
            found.push_back({Token::sign, text.substr(at, 1), line});
            ++at;
        }
    }
    found.push_back({Token::end, "the end of the file", line});
    return found;
}

}  // namespace ptx
