// cp.async: copies from global to shared memory that are complete only after a wait.
//
// PTX ISA, "Asynchronous copy": a copy may land at any time between its issue and the wait for its group.
// Here it lands at the latest allowed moment, so that a forgotten wait reads old contents. Under a nonzero
// seed, about half of the copies land at once, so that a copy into a buffer that is still being read does
// harm.
#pragma once

#include <cstddef>
#include <vector>

namespace simt {

struct AsyncCopy {
    void* shared;
    const void* global;
    size_t bytes;
    size_t copied;  // the first of the bytes; the copy writes zeros after them

    void land() const;
};

// The copies of one thread that are in flight.
class AsyncCopies {
public:
    void issue(const AsyncCopy& copy) { copies.push_back(copy); }
    // Closes a group, which may be empty.
    void commit() { ends.push_back(copies.size()); }
    // Completes all groups but the youngest `pending`.
    void wait(size_t pending);
    // Drops all copies, as at a thread's exit.
    void forget();

private:
    std::vector<AsyncCopy> copies;  // oldest first
    std::vector<size_t> ends;       // the end of each committed group in `copies`
};

}  // namespace simt
