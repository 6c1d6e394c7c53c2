// What ends the reading of a file of PTX.
#pragma once

#include <string>

#include "../types.h"

namespace ptx {

// The message names the file and the line.
struct Error {
    std::string message;
};

// A line of a file, which must outlive this.
struct Place {
    const std::string* file;
    u32 line;
};

[[noreturn]] inline void refuse(const Place& at, const std::string& what) {
    throw Error{*at.file + ":" + std::to_string(at.line) + ": " + what};
}

}  // namespace ptx
