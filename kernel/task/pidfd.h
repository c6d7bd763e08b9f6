#pragma once

#include "kernel/fs/file.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

/// pidfd_open(2): a process that its holder cannot mistake for another. Readable once it has ended.
class PidFile final : public File {
  public:
    PidFile(RefPtr<ThreadGroup> group, uint32_t flags);
    ~PidFile() override;

    ThreadGroup& group() const { return *group_; }
    const RefPtr<ThreadGroup>& group_ref() const { return group_; }

    std::string anonymous_name() const override { return "anon_inode:[pidfd]"; }
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &group_->exited(); }

  private:
    const RefPtr<ThreadGroup> group_;
};

/// The process behind `file`. EBADF: it is no pidfd.
Result<RefPtr<ThreadGroup>> process_of_pidfd(File& file);

}  // namespace moat::kernel
