// An opcode: its name and the modifiers that its decoder has not read yet.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace ptx {

class Opcode {
public:
    // PRECOND: `text` outlives this.
    explicit Opcode(std::string_view text);

    std::string_view name() const { return first; }
    // Reads this modifier, if it is there.
    bool take(std::string_view modifier);
    // Reads the first of these modifiers that is there, and returns its place in the list.
    std::optional<size_t> take_one(std::initializer_list<std::string_view> modifiers);
    // Reads the first modifier that begins so.
    bool take_beginning(std::string_view beginning);
    // Reads the first modifier that is a type.
    std::optional<Type> take_type();
    // The first modifier that nobody has read; empty if there is none.
    std::string_view rest() const { return modifiers.empty() ? std::string_view() : modifiers.front(); }

private:
    std::string_view first;
    std::vector<std::string_view> modifiers;
};

// How a result is rounded: to the nearest with ties to even, to zero, down or up.
enum class Rounding : u8 { nearest, zero, down, up };
// Reads .rn, .rz, .rm or .rp.
std::optional<Rounding> take_rounding(Opcode& opcode);

}  // namespace ptx
