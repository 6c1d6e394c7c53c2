#include "async_copy.h"

#include <cstring>

namespace simt {

void AsyncCopy::land() const {
    std::memcpy(shared, global, copied);
    std::memset(static_cast<unsigned char*>(shared) + copied, 0, bytes - copied);
}

void AsyncCopies::wait(size_t pending) {
    if (ends.size() <= pending) return;
    const size_t groups = ends.size() - pending, landed = ends[groups - 1];
    for (size_t i = 0; i < landed; ++i) copies[i].land();
    copies.erase(copies.begin(), copies.begin() + ptrdiff_t(landed));
    ends.erase(ends.begin(), ends.begin() + ptrdiff_t(groups));
    for (size_t& end : ends) end -= landed;
}

void AsyncCopies::forget() {
    copies.clear();
    ends.clear();
}

}  // namespace simt
