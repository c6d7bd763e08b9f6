#pragma once

#include <string>

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

/// signalfd(2): reads take pending signals of the reader. What is ready, and who is told, is that
/// of the process that made it: after fork(2) Linux's signalfd follows whoever polls it, this one
/// does not.
class SignalFile final : public File {
  public:
    SignalFile(Task& maker, uint64_t mask, uint32_t flags);
    ~SignalFile() override;

    void set_mask(uint64_t mask);
    uint64_t mask() const { return mask_.load(std::memory_order_relaxed); }

    std::string anonymous_name() const override { return "anon_inode:[signalfd]"; }
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<struct stat> stat(Task& task) override;
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &maker_group_->signal_events(); }

  private:
    const RefPtr<ThreadGroup> maker_group_;
    std::atomic<uint64_t> mask_;  // relaxed: no other data depends on it
};

}  // namespace moat::kernel
