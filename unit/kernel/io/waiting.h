#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/fs/file.h"
#include "kernel/mm/io_buffer.h"
#include "kernel/task/task.h"
#include "kernel/task/wait_queue.h"

// Last, and by this header only: the tests' CHECK takes the place of the kernel's.
#undef CHECK
#include <doctest/doctest.h>

// What tests of waiting files have in common. No test here has a guest task: the files under test
// do not look at the one they are given.
namespace moat::kernel::test {

/// For parameters that the code under test does not look at: not a task, only the place of one.
inline Task& no_task() {
    alignas(Task) static unsigned char place[sizeof(Task)];
    return reinterpret_cast<Task&>(place);
}

/// Counts and remembers what it is told.
class RecordingWaiter final : public Waiter {
  public:
    void on_event(PollMask mask) override {
        told++;
        seen |= mask;
    }
    int told = 0;
    PollMask seen = 0;
};

/// A file whose readiness the test sets.
class FakeFile final : public File {
  public:
    explicit FakeFile(bool* destroyed = nullptr) : File(2), destroyed_(destroyed) {}
    ~FakeFile() override {
        if (destroyed_ != nullptr) {
            *destroyed_ = true;
        }
    }
    PollMask poll() override {
        polls++;
        return ready;
    }
    WaitQueue* wait_queue() override { return &queue; }
    /// Becomes ready for `mask` and tells.
    void raise(PollMask mask) {
        ready |= mask;
        const WakeScope scope;
        queue.notify(mask);
    }
    PollMask ready = 0;
    int polls = 0;
    WaitQueue queue;

  private:
    bool* const destroyed_;
};

template <typename Source>
Result<std::string> read_some(Source& source, size_t size) {
    std::string bytes(size, '\0');
    IoBuffer buffer = IoBuffer::sentry(bytes.data(), bytes.size());
    const WakeScope scope;
    bytes.resize(TRY(source.read(buffer)));
    return bytes;
}

template <typename Sink>
Result<size_t> write_some(Sink& sink, std::string_view bytes) {
    IoBuffer buffer = IoBuffer::sentry(static_cast<const void*>(bytes.data()), bytes.size());
    const WakeScope scope;
    return sink.write(buffer);
}

}  // namespace moat::kernel::test
