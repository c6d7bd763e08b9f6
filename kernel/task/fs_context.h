#pragma once

#include <cstdint>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/fs/path.h"

namespace moat::kernel {

class MountNamespace;

/// Root, working directory and umask of a process (Linux: struct fs_struct). Shared by CLONE_FS.
class FsContext final : public RefCounted {
  public:
    FsContext(RefPtr<MountNamespace> mounts, Path root, Path cwd, uint32_t umask);
    ~FsContext() override;
    RefPtr<FsContext> clone() const;

    Path root() const;
    Path cwd() const;
    void set_root(Path root);
    void set_cwd(Path cwd);
    uint32_t umask() const;
    /// Returns the old one.
    uint32_t set_umask(uint32_t umask);
    MountNamespace& mounts() const;
    RefPtr<MountNamespace> mounts_ref() const;
    void set_mounts(RefPtr<MountNamespace> mounts);

  private:
    mutable Mutex<LockRank::kFsContext> mu_;
    RefPtr<MountNamespace> mounts_ GUARDED_BY(mu_);
    Path root_ GUARDED_BY(mu_);
    Path cwd_ GUARDED_BY(mu_);
    uint32_t umask_ GUARDED_BY(mu_);
};

}  // namespace moat::kernel
