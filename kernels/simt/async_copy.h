// cp.async: copies from global to shared memory that are complete only after a wait.
//
// PTX ISA, "Asynchronous copy": a copy may land at any time between its issue and the wait for its group.
// Here it lands at the latest moment allowed, so that a forgotten wait reads what was there before; under a
// nonzero seed about half of the copies land at once instead, so that one issued into a buffer still being
// read does harm.
#pragma once

#include <cstddef>
#include <vector>

namespace simt {

struct AsyncCopy {
    void* shared;
    const void* global;  // null: fill with zeros
    size_t bytes;

    void land() const;
};

// The copies that one thread has in flight.
class AsyncCopies {
public:
    void issue(const AsyncCopy& copy) { copies.push_back(copy); }
    // Closes a group, which may be empty.
    void commit() { ends.push_back(copies.size()); }
    // Completes all groups but the youngest `pending`.
    void wait(size_t pending);
    // An exited thread's copies are lost.
    void forget();

private:
    std::vector<AsyncCopy> copies;  // oldest first
    std::vector<size_t> ends;       // of each committed group, in `copies`
};

}  // namespace simt
