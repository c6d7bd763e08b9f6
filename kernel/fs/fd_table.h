#pragma once

#include <cstdint>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

/// A guest's descriptor. Never an int of the host.
enum class Fd : int32_t {};
constexpr int32_t to_integer(Fd fd) { return static_cast<int32_t>(fd); }

enum class CloseOnExec : bool { kNo, kYes };

class FdTable;

/// A free number that nobody else can get (Linux: get_unused_fd_flags()): for calls that would lose
/// something if there were none left afterwards. Gives the number back unless it was used.
class FdReservation {
  public:
    FdReservation(FdReservation&& other) noexcept;
    FdReservation& operator=(FdReservation&&) = delete;
    ~FdReservation();
    Fd install(RefPtr<File> file, CloseOnExec cloexec) &&;

  private:
    friend class FdTable;
    FdReservation(RefPtr<FdTable> table, size_t slot);
    RefPtr<FdTable> table_;  // null: used
    size_t slot_;
};

/// A process's descriptors (Linux: struct files_struct). Shared by CLONE_FILES.
class FdTable : public RefCounted {
  public:
    FdTable() = default;
    ~FdTable() override;
    /// fork(2): the same files under the same numbers.
    RefPtr<FdTable> clone() const;

    /// EBADF.
    Result<RefPtr<File>> get(Fd fd) const;
    /// The lowest free number from `lowest` on, below `limit` (RLIMIT_NOFILE). EMFILE.
    Result<Fd> install(RefPtr<File> file, CloseOnExec cloexec, uint64_t limit, int32_t lowest = 0);
    /// The lowest free number below `limit`, for later. EMFILE.
    Result<FdReservation> reserve(uint64_t limit);
    /// Two at once or none, for pipe(2) and socketpair(2).
    Result<std::pair<Fd, Fd>> install_pair(RefPtr<File> first, RefPtr<File> second,
                                           CloseOnExec cloexec, uint64_t limit);
    /// dup2(2): what was at `fd` is returned, to be closed by the caller without locks. EBADF;
    /// EBUSY: the number is reserved.
    Result<RefPtr<File>> replace(Fd fd, RefPtr<File> file, CloseOnExec cloexec, uint64_t limit);
    Result<RefPtr<File>> remove(Fd fd);
    Result<CloseOnExec> close_on_exec(Fd fd) const;
    Status set_close_on_exec(Fd fd, CloseOnExec cloexec);
    /// execve(2): drops those marked; returned for flushing without the lock.
    std::vector<RefPtr<File>> take_close_on_exec();
    std::vector<RefPtr<File>> take_all();
    /// Open numbers in order, for /proc/self/fd and close_range(2).
    std::vector<Fd> numbers() const;
    size_t size() const;

  private:
    friend class FdReservation;
    struct Slot {
        RefPtr<File> file;
        CloseOnExec cloexec = CloseOnExec::kNo;
        bool reserved = false;  // then without a file

        bool is_free() const { return !file && !reserved; }
    };
    /// Makes room for it too. EMFILE.
    Result<size_t> find_free_locked(size_t lowest, uint64_t limit) REQUIRES(mu_);

    mutable Mutex<LockRank::kFdTable> mu_;
    std::vector<Slot> slots_ GUARDED_BY(mu_);
    size_t first_free_ GUARDED_BY(mu_) = 0;  // all below are taken
};

}  // namespace moat::kernel
