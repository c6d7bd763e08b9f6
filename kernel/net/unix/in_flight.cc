#include "kernel/net/unix/in_flight.h"

#include <atomic>
#include <iterator>

namespace moat::kernel {

namespace {

std::atomic<size_t> in_flight{0};

// Descriptions to be let go of by the outermost drop() of this thread.
thread_local std::vector<RefPtr<File>> doomed;
thread_local bool dropping = false;

}  // namespace

Result<InFlightFiles> InFlightFiles::send(std::vector<RefPtr<File>> files) {
    const size_t count = files.size();
    if (in_flight.fetch_add(count, std::memory_order_relaxed) + count > kLimit) {
        in_flight.fetch_sub(count, std::memory_order_relaxed);
        return Errno(ETOOMANYREFS);
    }
    InFlightFiles result;
    result.files_ = std::move(files);
    return result;
}

InFlightFiles& InFlightFiles::operator=(InFlightFiles&& other) noexcept {
    if (this != &other) {
        drop();
        files_ = std::move(other.files_);
        other.files_.clear();
    }
    return *this;
}

std::vector<RefPtr<File>> InFlightFiles::receive() {
    in_flight.fetch_sub(files_.size(), std::memory_order_relaxed);
    return std::exchange(files_, {});
}

void InFlightFiles::drop() {
    if (files_.empty()) {
        return;
    }
    std::vector<RefPtr<File>> mine = receive();
    std::move(mine.begin(), mine.end(), std::back_inserter(doomed));
    if (dropping) {
        return;
    }
    dropping = true;
    while (!doomed.empty()) {
        const RefPtr<File> next = std::move(doomed.back());
        doomed.pop_back();
    }
    dropping = false;
}

}  // namespace moat::kernel
