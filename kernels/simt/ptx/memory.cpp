// Loads and stores: PTX ISA, "ld" and "st", and the instructions that only hint.
#include "memory.h"

#include <algorithm>

#include "each.h"

namespace ptx {
namespace {

const char* name_of_space(Space space) {
    switch (space) {
        case Space::global:
            return "global";
        case Space::shared:
            return "shared";
        case Space::local:
            return "local";
        case Space::param:
            return "param";
        case Space::generic:
            break;
    }
    return "generic";
}

void check_alignment(const Warp& warp, const Instruction& at, u32 lane, Space space, u64 address, u32 bytes) {
    if (address % bytes)
        fault(warp, at, lane, "an access of %u bytes at %s address 0x%llx, which is no multiple of %u", bytes,
              name_of_space(space), address, bytes);
}

u8* within(const Warp& warp, const Instruction& at, u32 lane, Space space, u64 address, u32 bytes, u8* memory,
           size_t size) {
    check_alignment(warp, at, lane, space, address, bytes);
    if (address > size || bytes > size - address)
        fault(warp, at, lane, "an access of %u bytes at %s address 0x%llx, past the %zu bytes there", bytes,
              name_of_space(space), address, size);
    return memory + address;
}

// Finds the allocation with this address and keeps it in the warp.
bool find(Warp& warp, u64 address) {
    const std::vector<Range>& all = warp.block->launch.global;
    const auto after = std::upper_bound(all.begin(), all.end(), address, [](u64 address, const Range& range) {
        return address < range.begin;
    });
    if (after == all.begin() || address >= after[-1].end) return false;
    warp.found_begin = after[-1].begin;
    warp.found_end = after[-1].end;
    return true;
}

bool is_global(Warp& warp, u64 address, u64 bytes) {
    const auto is_found = [&] {
        return address >= warp.found_begin && address < warp.found_end && bytes <= warp.found_end - address;
    };
    return is_found() || (find(warp, address) && is_found());
}

// Generic addresses in one of the windows.
bool split(u64 address, Space& space, u64& offset) {
    constexpr struct {
        u64 begin;
        Space space;
    } windows[] = {
        {shared_window, Space::shared}, {local_window, Space::local}, {param_window, Space::param}};
    for (const auto& window : windows) {
        if (address < window.begin) continue;
        space = window.space;
        offset = address - window.begin;
        return true;
    }
    return false;
}

// One access of N elements of type T by each lane.
template <class T, u32 N, Space SPACE>
void run_load(Warp& warp, const Instruction& at, u32 lanes) {
    u64 addresses[32];
    addresses_of(warp, at, N, 0, addresses);
    Stored<T>* to[N];
    for (u32 i = 0; i < N; ++i) to[i] = warp.lanes_of<T>(at.operands[i]);
    const bool is_checked =
        SPACE == Space::global && are_in_one_allocation(warp, lanes, addresses, sizeof(T) * N);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        const u8* from = is_checked ? reinterpret_cast<const u8*>(addresses[lane])
                                    : locate(warp, at, lane, SPACE, addresses[lane], sizeof(T) * N);
        T values[N];
        std::memcpy(values, from, sizeof values);
        for (u32 i = 0; i < N; ++i) to[i][lane] = Stored<T>(values[i]);
    }
}

template <class T, u32 N, Space SPACE>
void run_store(Warp& warp, const Instruction& at, u32 lanes) {
    u64 addresses[32];
    addresses_of(warp, at, 0, 0, addresses);
    const Stored<T>* from[N];
    for (u32 i = 0; i < N; ++i) from[i] = warp.lanes_of<T>(at.operands[1 + i]);
    const bool is_checked =
        SPACE == Space::global && are_in_one_allocation(warp, lanes, addresses, sizeof(T) * N);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        u8* to = is_checked ? reinterpret_cast<u8*>(addresses[lane])
                            : locate(warp, at, lane, SPACE, addresses[lane], sizeof(T) * N);
        T values[N];
        for (u32 i = 0; i < N; ++i) values[i] = T(from[i][lane]);
        std::memcpy(to, values, sizeof values);
    }
}

struct Access {
    Space space;
    u32 count;  // elements of a vector
    bool has_policy;
    Type type;
};

// Reads the modifiers that loads and stores share. What they say of caches and of the order of memory changes
// nothing here: a warp's accesses take effect in order.
Access take_access(Opcode& opcode) {
    opcode.take("weak");
    opcode.take("volatile");
    opcode.take_one({"relaxed", "acquire", "release"});
    opcode.take_one({"cta", "cluster", "gpu", "sys"});
    opcode.take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
    opcode.take("nc");
    Access access{};
    access.has_policy = opcode.take("L2::cache_hint");
    while (opcode.take_beginning("L1::") || opcode.take_beginning("L2::")) {
    }
    const auto space =
        opcode.take_one({"global", "shared", "shared::cta", "local", "param", "const", "param::entry"});
    constexpr Space spaces[] = {Space::global, Space::shared, Space::shared, Space::local,
                                Space::param,  Space::global, Space::param};
    access.space = space ? spaces[*space] : Space::generic;
    const auto vector = opcode.take_one({"v2", "v4"});
    access.count = vector ? 2u << *vector : 1;
    access.type = opcode.take_type().value_or(Type::pred);
    return access;
}

// T by size and sign, since a wider register gets the sign too.
template <class F>
Execute for_memory_type(Type type, F f) {
    switch (type) {
        case Type::s8:
            return f(i8());
        case Type::s16:
            return f(i16());
        default:
            break;
    }
    switch (size_of(type)) {
        case 1:
            return f(u8());
        case 2:
            return f(u16());
        case 4:
            return f(u32());
        case 8:
            return f(u64());
        default:
            return nullptr;
    }
}

template <bool IS_LOAD, class T, u32 N>
Execute in_space(Space space) {
    constexpr auto of = [](auto which) -> Execute {
        if constexpr (IS_LOAD)
            return run_load<T, N, decltype(which)::value>;
        else
            return run_store<T, N, decltype(which)::value>;
    };
    switch (space) {
        case Space::global:
            return of(std::integral_constant<Space, Space::global>());
        case Space::shared:
            return of(std::integral_constant<Space, Space::shared>());
        case Space::local:
            return of(std::integral_constant<Space, Space::local>());
        case Space::param:
            return of(std::integral_constant<Space, Space::param>());
        case Space::generic:
            return of(std::integral_constant<Space, Space::generic>());
    }
    return nullptr;
}

template <bool IS_LOAD>
Execute execute_of(const Access& access) {
    return for_memory_type(access.type, [&](auto x) -> Execute {
        using T = decltype(x);
        if (access.count == 1) return in_space<IS_LOAD, T, 1>(access.space);
        if (access.count == 2) return in_space<IS_LOAD, T, 2>(access.space);
        if constexpr (sizeof(T) <= 4) return in_space<IS_LOAD, T, 4>(access.space);
        return nullptr;
    });
}

Form do_nothing() {
    return {[](Warp&, const Instruction&, u32) {}, {}, {}};
}

}  // namespace

void addresses_of(Warp& warp, const Instruction& at, u32 operand, u32 number, u64 addresses[32]) {
    const u64 offset = u64(at.offsets[number]);
    if (at.are_wide[number]) {
        const u64* from = warp.lanes_of<u64>(at.operands[operand]);
        for (u32 lane = 0; lane < 32; ++lane) addresses[lane] = from[lane] + offset;
    } else {
        const u32* from = warp.lanes_of<u32>(at.operands[operand]);
        for (u32 lane = 0; lane < 32; ++lane) addresses[lane] = u32(from[lane] + u32(offset));
    }
}

bool are_in_one_allocation(Warp& warp, u32 lanes, const u64 addresses[32], u32 bytes) {
    u64 least = ~u64(0), most = 0, low_bits = 0;
    for (u32 left = lanes; left; left &= left - 1) {
        const u64 address = addresses[lowest(left)];
        least = std::min(least, address);
        most = std::max(most, address);
        low_bits |= address;
    }
    return !(low_bits % bytes) && is_global(warp, least, most - least + bytes);
}

u8* locate(Warp& warp, const Instruction& at, u32 lane, Space space, u64 address, u32 bytes) {
    Block& block = *warp.block;
    const Kernel& kernel = *block.launch.kernel;
    u64 offset = address;
    if (space == Space::generic && !split(address, space, offset)) space = Space::global;
    switch (space) {
        case Space::shared:
            return within(warp, at, lane, space, offset, bytes, block.shared, block.shared_bytes);
        case Space::local:
            return within(warp, at, lane, space, offset, bytes, warp.local + lane * kernel.local_bytes,
                          kernel.local_bytes);
        case Space::param:
            return within(warp, at, lane, space, offset, bytes, const_cast<u8*>(block.launch.params),
                          kernel.params_bytes);
        case Space::global:
        case Space::generic:
            break;
    }
    check_alignment(warp, at, lane, space, address, bytes);
    if (!is_global(warp, address, bytes))
        fault(warp, at, lane, "an access of %u bytes at global address 0x%llx, which is in no allocation",
              bytes, address);
    return reinterpret_cast<u8*>(address);
}

const u8* locate_source(Warp& warp, const Instruction& at, u32 lane, u64 address, u32 bytes) {
    if (bytes && !is_global(warp, address, bytes))
        fault(warp, at, lane, "a copy of %u bytes from global address 0x%llx, which is in no allocation",
              bytes, address);
    return reinterpret_cast<const u8*>(address);
}

Form load(Opcode& opcode, const Statement&) {
    const Access access = take_access(opcode);
    Form form{execute_of<true>(access), {}, {address}};
    form.destinations.assign(access.count, access.type);
    if (access.has_policy) form.sources.push_back(Type::b64);
    form.is_relaxed = true;
    return form;
}

Form store(Opcode& opcode, const Statement&) {
    const Access access = take_access(opcode);
    if (access.space == Space::param) return {};
    Form form{execute_of<false>(access), {}, {address}};
    form.sources.insert(form.sources.end(), access.count, access.type);
    if (access.has_policy) form.sources.push_back(Type::b64);
    form.is_relaxed = true;
    return form;
}

// Hints of what will be read change no result.
Form prefetch(Opcode& opcode, const Statement&) {
    opcode.take_one({"global", "local", "param", "const"});
    opcode.take("tensormap");
    while (opcode.take_beginning("L1") || opcode.take_beginning("L2")) {
    }
    Form form = do_nothing();
    form.sources = {address};
    return form;
}

// A policy of the cache, which other instructions take and ignore.
Form createpolicy(Opcode& opcode, const Statement& statement) {
    while (!opcode.rest().empty()) opcode.take(opcode.rest());
    Form form{[](Warp& warp, const Instruction& at, u32) {
                  std::memset(warp.lanes_of<u64>(at.operands[0]), 0, 32 * sizeof(u64));
              },
              {Type::b64},
              {}};
    for (size_t i = 1; i < statement.operands.size(); ++i)
        form.sources.push_back(statement.operands[i].kind == Operand::real ? Type::f64 : Type::b32);
    return form;
}

// Blocks on several threads need the host's fence.
Form fence(Opcode& opcode, const Statement&) {
    while (opcode.take_one({"sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "gl", "sys"})) {
    }
    opcode.take_beginning("proxy");
    opcode.take_beginning("async");
    while (opcode.take_one({"alias", "global", "shared::cta", "shared"})) {
    }
    return {[](Warp&, const Instruction&, u32) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }, {}, {}};
}

}  // namespace ptx
