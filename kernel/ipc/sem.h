#pragma once

// System V semaphores (semget(2)).

#include <sys/sem.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/ipc/ipc_object.h"
#include "kernel/ipc/waiting.h"

namespace moat::kernel {

class SemTable;

/// A semop(2) that has to wait.
class SemWaiter final : public IpcWaiter {
  public:
    SemWaiter(Task& sleeper, std::vector<sembuf> wanted)
        : IpcWaiter(sleeper), operations(std::move(wanted)), actor(IpcActor::of(sleeper)) {}

    const std::vector<sembuf> operations;
    const IpcActor actor;
    size_t blocking = 0;  ///< which of them cannot be done yet
};

class SemSet final : public IpcObject {
  public:
    struct Semaphore {
        int32_t value = 0;
        IpcActor last;
    };
    ~SemSet() override;

    size_t charged = 0;  ///< ipc memory
    std::vector<Semaphore> semaphores;
    int64_t operated_at = 0, changed_at = 0;
    std::list<RefPtr<SemWaiter>> waiters;  ///< in the order of their coming
};

/// The semaphores of an IPC namespace.
class SemTable {
  public:
    struct Limits {
        uint64_t per_set = 32000;     ///< SEMMSL
        uint64_t total = 1024000000;  ///< SEMMNS
        uint64_t operations = 500;    ///< SEMOPM
        uint64_t sets = 32000;        ///< SEMMNI
    };
    static constexpr int32_t kMostValue = 32767;  // SEMVMX

    explicit SemTable(const Limits& limits) : limits_(limits) {}
    ~SemTable();

    Result<int32_t> get(Task& task, int32_t key, int32_t count, uint32_t flags);
    /// semtimedop(2); `operations` at most limits().operations. Blocks.
    Result<int64_t> operate(Task& task, int32_t id, std::vector<sembuf> operations,
                            Deadline deadline);

    struct Status64 {
        semid_ds ds;
        int32_t id;
    };
    enum class By : uint8_t { kId, kIndex, kIndexAny };
    Result<Status64> stat(Task& task, int32_t number, By by);
    Status set(Task& task, int32_t id, const semid_ds& wanted);
    Status remove(Task& task, int32_t id);
    Result<std::vector<uint16_t>> values(Task& task, int32_t id);
    /// How many SETALL needs. EINVAL, EACCES.
    Result<size_t> size(Task& task, int32_t id, uint32_t wanted);
    Status set_values(Task& task, int32_t id, const std::vector<uint16_t>& values);
    Status set_value(Task& task, int32_t id, int32_t number, int32_t value);
    enum class Ask : uint8_t { kValue, kPid, kWaitForMore, kWaitForZero };
    Result<int64_t> ask(Task& task, int32_t id, int32_t number, Ask what);
    struct Info {
        int32_t highest;
        uint64_t sets, semaphores;
    };
    Info info();
    const Limits& limits() const { return limits_; }
    /// /proc/sysvipc/sem.
    std::string text(const Task& reader);
    void process_exited(const ThreadGroup& group);

  private:
    /// What SEM_UNDO is to add when a process ends: by set, an amount for each semaphore.
    using UndoList = std::map<int32_t, std::vector<int16_t>>;

    enum class Outcome : uint8_t { kDone, kMustWait };
    Result<int32_t> create_locked(Task& task, int32_t key, size_t count, uint32_t flags)
        REQUIRES(mu_);
    Result<Outcome> perform_locked(SemSet& set, const std::vector<sembuf>& operations,
                                   const IpcActor& who, const ThreadGroup& group, size_t* blocking)
        REQUIRES(mu_);
    /// Carries out what has become possible.
    void update_locked(SemSet& set) REQUIRES(mu_);
    /// The amounts of one process for one set, made if need be. ENOMEM.
    Result<std::vector<int16_t>*> undo_of_locked(const ThreadGroup& group, const SemSet& set)
        REQUIRES(mu_);
    void forget_undo_locked(const SemSet& set, int32_t number) REQUIRES(mu_);
    void destroy_locked(SemSet& set) REQUIRES(mu_);

    Mutex<LockRank::kIpc> mu_;
    IpcTable<SemSet> sets_ GUARDED_BY(mu_);
    uint64_t total_ GUARDED_BY(mu_) = 0;
    std::map<const ThreadGroup*, UndoList> undo_ GUARDED_BY(mu_);
    std::atomic<bool> has_undo_{false};  // a hint for process_exited()
    const Limits limits_;
};

}  // namespace moat::kernel
