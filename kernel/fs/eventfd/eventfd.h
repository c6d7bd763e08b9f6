#pragma once

#include <string>

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

/// eventfd(2): a counter that reads take and writes add to.
class EventFile final : public File {
  public:
    enum class Mode : bool { kCounter, kSemaphore };
    EventFile(uint64_t initial, Mode mode, uint32_t flags);

    std::string anonymous_name() const override { return "anon_inode:[eventfd]"; }
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<size_t> write(Task& task, IoBuffer& source) override;
    Result<struct stat> stat(Task& task) override;
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &queue_; }
    uint64_t count();

  private:
    static constexpr uint64_t kMax = UINT64_MAX - 1;

    const Mode mode_;
    Mutex<LockRank::kEventFile> mu_;
    uint64_t count_ GUARDED_BY(mu_);
    WaitQueue queue_;
};

}  // namespace moat::kernel
