#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/fs/tty/tty.h"

namespace moat::kernel {

class Container;
class MountNamespace;
class PtySlaveInode;

/// One mount of devpts: terminals with numbers of their own (Linux: devpts since 4.7).
class DevptsFileSystem final : public SyntheticFileSystem {
  public:
    struct Options {
        uint32_t uid = UINT32_MAX;  ///< UINT32_MAX: the opener's
        uint32_t gid = UINT32_MAX;
        uint32_t mode = 0600;
        uint32_t ptmx_mode = 0;
        uint32_t max = 4096;
    };
    /// uid=, gid=, mode=, ptmxmode=, max=, newinstance. EINVAL.
    static Result<RefPtr<DevptsFileSystem>> create(const std::vector<std::string>& options);

    std::string mount_options() const override;

    /// A new terminal with an entry of its number, owned by `uid`:`gid` where the options do not
    /// say otherwise. Its far side is the caller's, who ends with hang_up(): the entry goes then.
    /// ENOSPC beyond `max`.
    Result<RefPtr<Tty>> allocate(uint32_t uid, uint32_t gid);
    /// open(2) of ptmx: allocates, and gives the far side.
    Result<RefPtr<File>> open_ptmx(Task& task, const Path& path, uint32_t flags);

    RefPtr<PtySlaveInode> find(std::string_view name);
    std::vector<DirectoryEntry> list();
    Inode& ptmx() { return *ptmx_; }

  private:
    explicit DevptsFileSystem(const Options& options);
    void release(uint32_t index);

    const Options options_;
    RefPtr<SyntheticInode> ptmx_;  // immutable
    Mutex<LockRank::kFileSystem> mu_;
    std::map<uint32_t, RefPtr<PtySlaveInode>> slaves_ GUARDED_BY(mu_);
};

/// /dev/pts/N.
class PtySlaveInode final : public SyntheticInode {
  public:
    PtySlaveInode(DevptsFileSystem& fs, RefPtr<Tty> tty, uint32_t mode);
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;
    Tty& tty() const { return *tty_; }
    /// The name has gone (Linux: fs/devpts/inode.c:devpts_pty_kill): its number may be given anew.
    void unlink() { unlinked_.store(true, std::memory_order_relaxed); }

  protected:
    uint32_t link_count() override { return unlinked_.load(std::memory_order_relaxed) ? 0 : 1; }

  private:
    const RefPtr<Tty> tty_;
    std::atomic<bool> unlinked_{false};  // relaxed: no other data depends on it
};

/// The devpts that was mounted last in a container, for terminals that the control server makes
/// (their near side is then opened by path, "/dev/pts/N"). Null: none.
RefPtr<DevptsFileSystem> find_devpts(const MountNamespace& mounts);

/// Registers "devpts" and the devices 5:0 (tty), 5:1 (console) and 5:2 (ptmx). At boot.
void register_devpts();

/// Makes `tty` what opening /dev/console means in `container`; null takes it away.
void set_console(const Container& container, RefPtr<Tty> tty);

}  // namespace moat::kernel
