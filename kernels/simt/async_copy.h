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

// The copies that one thread has in flight.
class AsyncCopies {
public:
    // `global` null: fill with zeros.
    void issue(void* shared, const void* global) { copies.push_back({shared, global}); }
    // Closes a group, which may be empty.
    void commit() { ends.push_back(copies.size()); }
    // Completes all groups but the youngest `pending`.
    void wait(size_t pending);
    // An exited thread's copies are lost.
    void forget();

    static void land(void* shared, const void* global);

private:
    struct Copy {
        void* shared;
        const void* global;
    };
    std::vector<Copy> copies;  // oldest first
    std::vector<size_t> ends;  // of each committed group, in `copies`
};

}  // namespace simt
