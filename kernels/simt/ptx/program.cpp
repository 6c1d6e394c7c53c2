// Loads a folder of PTX.
#include "program.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "builder.h"
#include "load.h"
#include "syntax.h"

namespace ptx {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const std::string& folder) {
    std::error_code error;
    std::vector<fs::path> files;
    for (fs::directory_iterator each(folder, error), end; !error && each != end; each.increment(error))
        if (each->path().extension() == ".ptx") files.push_back(each->path());
    if (error) throw Error{folder + ": " + error.message()};
    if (files.empty()) throw Error{folder + ": there is no file of PTX (.ptx) in this folder"};
    std::sort(files.begin(), files.end());
    return files;
}

std::string contents_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!fs::is_regular_file(path) || !file) throw Error{path.string() + ": this file cannot be read"};
    return {std::istreambuf_iterator<char>(file), {}};
}

// Gives the file's variables their memory. Returns their addresses by name.
std::map<std::string, u64> add_data(Program& program, const File& file) {
    std::map<std::string, u64> addresses;
    for (const Variable& variable : file.global) {
        Data data{std::make_unique<u64[]>((variable.bytes + 7) / 8), variable.bytes};
        std::copy(variable.contents.begin(), variable.contents.end(),
                  reinterpret_cast<u8*>(data.words.get()));
        addresses[variable.name] = data.address();
        program.data.push_back(std::move(data));
    }
    return addresses;
}

void add_file(Program& program, const fs::path& path) {
    const std::string name = path.filename().string();
    const File file = parse(contents_of(path), name);
    const std::map<std::string, u64> globals = add_data(program, file);
    for (const Entry& entry : file.entries) {
        if (program.find(entry.name))
            throw Error{name + ": another file has the kernel " + entry.name + " too"};
        program.kernels.push_back(Builder(file, entry, globals, name).run());
    }
}

}  // namespace

const Kernel* Program::find(const std::string& name) const {
    const auto found = std::find_if(kernels.begin(), kernels.end(),
                                    [&](const Kernel& kernel) { return kernel.name == name; });
    return found == kernels.end() ? nullptr : &*found;
}

Program load(const std::string& folder) {
    Program program;
    for (const fs::path& file : files_in(folder)) add_file(program, file);
    return program;
}

}  // namespace ptx
