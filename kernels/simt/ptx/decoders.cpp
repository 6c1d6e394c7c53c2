// The opcodes by name.
#include <cstddef>

#include "form.h"

namespace ptx {
namespace {

constexpr struct {
    std::string_view name;
    Decode decode;
} all[] = {
    {"abs", absolute},
    {"activemask", activemask},
    {"add", add},
    {"and", bitwise_and},
    {"atom", atom},
    {"bar", bar},
    {"barrier", bar},
    {"bfe", bfe},
    {"bfi", bfi},
    {"bfind", bfind},
    {"brev", brev},
    {"clz", clz},
    {"cnot", cnot},
    {"copysign", copysign},
    {"cos", cosine},
    {"cp", cp},
    {"createpolicy", createpolicy},
    {"cvt", cvt},
    {"cvta", cvta},
    {"div", division},
    {"elect", elect},
    {"ex2", exponential},
    {"exit", exit},
    {"fence", fence},
    {"fma", fma},
    {"griddepcontrol", nothing},
    {"ld", load},
    {"ldmatrix", ldmatrix},
    {"ldu", load},
    {"lg2", logarithm},
    {"lop3", lop3},
    {"mad", mad},
    {"match", match},
    {"max", maximum},
    {"membar", fence},
    {"min", minimum},
    {"mma", mma},
    {"mov", mov},
    {"mul", mul},
    {"nanosleep", nothing},
    {"neg", negate},
    {"not", bitwise_not},
    {"or", bitwise_or},
    {"popc", popc},
    {"prefetch", prefetch},
    {"prefetchu", prefetch},
    {"prmt", prmt},
    {"rcp", reciprocal},
    {"red", red},
    {"redux", redux},
    {"rem", rem},
    {"ret", exit},
    {"rsqrt", reciprocal_root},
    {"sad", sad},
    {"selp", selp},
    {"set", set},
    {"setp", setp},
    {"shf", shf},
    {"shfl", shfl},
    {"shl", shl},
    {"shr", shr},
    {"sin", sine},
    {"sqrt", square_root},
    {"st", store},
    {"stmatrix", stmatrix},
    {"sub", sub},
    {"tanh", tangent},
    {"testp", testp},
    {"trap", trap},
    {"vote", vote},
    {"xor", bitwise_xor},
};

}  // namespace

Decode decoder_of(std::string_view name) {
    for (const auto& each : all)
        if (each.name == name) return each.decode;
    return nullptr;
}

}  // namespace ptx
