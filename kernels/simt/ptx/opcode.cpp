#include "opcode.h"

#include <algorithm>

namespace ptx {

Opcode::Opcode(std::string_view text) : first(text.substr(0, text.find('.'))) {
    text.remove_prefix(first.size());
    while (!text.empty()) {
        text.remove_prefix(1);
        const std::string_view modifier = text.substr(0, text.find('.'));
        modifiers.push_back(modifier);
        text.remove_prefix(modifier.size());
    }
}

bool Opcode::take(std::string_view modifier) {
    const auto found = std::find(modifiers.begin(), modifiers.end(), modifier);
    if (found == modifiers.end()) return false;
    modifiers.erase(found);
    return true;
}

std::optional<size_t> Opcode::take_one(std::initializer_list<std::string_view> wanted) {
    for (const std::string_view& each : wanted)
        if (take(each)) return &each - wanted.begin();
    return std::nullopt;
}

bool Opcode::take_beginning(std::string_view beginning) {
    const auto found = std::find_if(modifiers.begin(), modifiers.end(), [&](std::string_view each) {
        return each.substr(0, beginning.size()) == beginning;
    });
    if (found == modifiers.end()) return false;
    modifiers.erase(found);
    return true;
}

std::optional<Type> Opcode::take_type() {
    for (auto each = modifiers.begin(); each != modifiers.end(); ++each) {
        const std::optional<Type> type = type_named(*each);
        if (!type) continue;
        modifiers.erase(each);
        return type;
    }
    return std::nullopt;
}

std::optional<Rounding> take_rounding(Opcode& opcode) {
    const auto found = opcode.take_one({"rn", "rz", "rm", "rp"});
    if (!found) return std::nullopt;
    return Rounding(*found);
}

}  // namespace ptx
