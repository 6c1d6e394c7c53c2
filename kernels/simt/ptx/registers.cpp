#include "registers.h"

#include <algorithm>
#include <queue>

namespace ptx {
namespace {

// A set of registers.
class Set {
public:
    explicit Set(size_t registers) : words((registers + 63) / 64) {}

    void add(u32 number) { words[number / 64] |= u64(1) << number % 64; }
    void remove(u32 number) { words[number / 64] &= ~(u64(1) << number % 64); }
    void add_all(const Set& other) {
        for (size_t i = 0; i < words.size(); ++i) words[i] |= other.words[i];
    }
    bool operator==(const Set& other) const { return words == other.words; }

    template <class F>
    void for_each(F f) const {
        for (size_t i = 0; i < words.size(); ++i)
            for (u64 left = words[i]; left; left &= left - 1) f(u32(64 * i + size_t(__builtin_ctzll(left))));
    }

private:
    std::vector<u64> words;
};

// A stretch of instructions that run one after the other.
struct Run {
    u32 begin, end;
    std::vector<u32> next;  // runs that may follow
    Set live_in, live_out;  // registers whose values are needed
};

std::vector<Run> runs_of(const std::vector<RegisterUse>& uses, size_t registers) {
    std::vector<bool> begins(uses.size() + 1);
    begins[0] = true;
    for (size_t i = 0; i < uses.size(); ++i) {
        for (const u32 target : uses[i].targets) begins[target] = true;
        if (!uses[i].targets.empty() || !uses[i].falls_through) begins[i + 1] = true;
    }
    std::vector<u32> run_at(uses.size());
    std::vector<Run> runs;
    for (u32 i = 0; i < uses.size(); ++i) {
        if (begins[i]) runs.push_back({i, i, {}, Set(registers), Set(registers)});
        run_at[i] = u32(runs.size() - 1);
        runs.back().end = i + 1;
    }
    for (Run& run : runs) {
        const RegisterUse& last = uses[run.end - 1];
        if (last.falls_through && run.end < uses.size()) run.next.push_back(run_at[run.end]);
        for (const u32 target : last.targets) run.next.push_back(run_at[target]);
    }
    return runs;
}

// From what is live after an instruction to what is live before it.
void step_back(const RegisterUse& use, Set& live) {
    if (!use.is_partial)
        for (const u32 number : use.writes) live.remove(number);
    for (const u32 number : use.reads) live.add(number);
}

// The values that each lane needs follow from its own path, so the usual analysis of one thread holds for a
// warp.
void find_live(const std::vector<RegisterUse>& uses, std::vector<Run>& runs) {
    for (bool has_changed = true; has_changed;) {
        has_changed = false;
        for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
            for (const u32 next : run->next) run->live_out.add_all(runs[next].live_in);
            Set live = run->live_out;
            for (u32 i = run->end; i-- > run->begin;) step_back(uses[i], live);
            if (live == run->live_in) continue;
            run->live_in = std::move(live);
            has_changed = true;
        }
    }
}

// From the first to the last instruction, in the order of the file, at which a register's place is taken.
struct Interval {
    u32 begin = 0xffffffff, end = 0, number = 0;

    void include(u32 at) {
        begin = std::min(begin, at);
        end = std::max(end, at);
    }
};

std::vector<Interval> intervals_of(const std::vector<RegisterUse>& uses, size_t registers) {
    std::vector<Run> runs = runs_of(uses, registers);
    find_live(uses, runs);
    std::vector<Interval> intervals(registers);
    for (u32 i = 0; i < registers; ++i) intervals[i].number = i;
    for (u32 i = 0; i < uses.size(); ++i) {
        for (const u32 number : uses[i].reads) intervals[number].include(i);
        for (const u32 number : uses[i].writes) intervals[number].include(i);
    }
    for (const Run& run : runs) {
        run.live_in.for_each([&](u32 number) { intervals[number].include(run.begin); });
        run.live_out.for_each([&](u32 number) { intervals[number].include(run.end - 1); });
    }
    return intervals;
}

// Places of one size, of which those that are free are used again.
class Pool {
public:
    u32 take(u32 begin, u32 end, size_t bytes, size_t& top) {
        u32 offset = u32(top);
        if (!taken.empty() && taken.top().first < begin) {
            offset = taken.top().second;
            taken.pop();
        } else {
            top += bytes;
        }
        taken.push({end, offset});
        return offset;
    }

private:
    using Taken = std::pair<u32, u32>;  // (last instruction, offset)
    std::priority_queue<Taken, std::vector<Taken>, std::greater<Taken>> taken;
};

}  // namespace

Placement place_registers_of(const std::vector<RegisterUse>& uses, const std::vector<u32>& widths,
                             const std::vector<bool>& is_fixed) {
    std::vector<Interval> intervals = intervals_of(uses, widths.size());
    std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.number < b.number;
    });
    Placement made{std::vector<u32>(widths.size()), 0};
    Pool pools[9];  // by width
    for (const u32 width : {8, 4, 2, 0}) {
        const size_t bytes = width ? 32 * width : 4;
        for (const Interval& each : intervals) {
            if (widths[each.number] != width) continue;
            if (is_fixed[each.number]) {
                made.offsets[each.number] = u32(made.bytes);
                made.bytes += bytes;
            } else if (each.begin <= each.end) {
                made.offsets[each.number] = pools[width].take(each.begin, each.end, bytes, made.bytes);
            }
        }
    }
    made.bytes = (made.bytes + 63) / 64 * 64;
    return made;
}

}  // namespace ptx
