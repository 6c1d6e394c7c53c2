#pragma once

#include <string>

#include "error.h"
#include "program.h"

namespace ptx {

// The kernels of all files of PTX in a folder. Throws Error.
Program load(const std::string& folder);

}  // namespace ptx
