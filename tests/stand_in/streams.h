// Streams that run what they were given as late, or as early, as CUDA's rules allow.
//
// Work of one stream runs in order. Streams run side by side: here, one step at a time in an order drawn from
// STAND_IN_SEED, and none further than something waits for, except where chance has it. So work that lacks a wait sees
// memory that is not written yet, or that is written already.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <vector>

using Work = std::function<int()>;

struct Stream;

// Work, or the wait for the first `count` steps of another stream.
struct Step {
    Work work;
    Stream* other = nullptr;
    size_t count = 0;
};

// The steps that one stream has not run yet.
struct Line {
    std::deque<Step> steps;
    size_t done = 0;
    size_t joined = 0;  // how many steps the others have waited for

    size_t queued() const { return done + steps.size(); }
};

// A line for each stream, and the order in which their steps run.
class Lines {
public:
    Line& of(Stream* stream) { return lines[stream]; }
    const std::map<Stream*, Line>& all() const { return lines; }

    void wait(Stream* stream, Stream* other, size_t count) {
        Line& line = of(other);
        line.joined = std::max(line.joined, count);
        of(stream).steps.push_back({nullptr, other, count});
    }

    // Runs the first `count` steps of a stream, and before each of them what it waits for. Returns the first error.
    int run(Stream* stream, size_t count) {
        int error = 0;
        Line& line = of(stream);
        while (!error && line.done < count) {
            if (draw(4) == 0) {
                error = run_any();
            } else if (is_ready(line)) {
                error = step(line);
            } else {
                error = run(line.steps.front().other, line.steps.front().count);
            }
        }
        return error;
    }

    int run_all() {
        int error = 0;
        for (const auto& [stream, line] : lines) {
            if (!error) error = run(stream, line.queued());
        }
        return error;
    }

    // Runs some steps of some stream that need not wait.
    int run_any() {
        if (lines.empty()) return 0;
        Line& line = std::next(lines.begin(), draw(lines.size()))->second;
        int error = 0;
        for (size_t most = draw(8); !error && most && is_ready(line); most--) error = step(line);
        return error;
    }

private:
    std::map<Stream*, Line> lines;

    static size_t draw(size_t below) {
        static std::mt19937_64 random(getenv("STAND_IN_SEED") ? atol(getenv("STAND_IN_SEED")) : 1);
        return random() % below;
    }

    bool is_ready(const Line& line) {
        if (line.steps.empty()) return false;
        const Step& next = line.steps.front();
        return !next.other || of(next.other).done >= next.count;
    }

    static int step(Line& line) {
        Work work = std::move(line.steps.front().work);
        line.steps.pop_front();
        line.done++;
        return work ? work() : 0;
    }
};
