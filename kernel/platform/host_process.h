#pragma once

// Host processes and threads that run guest code, and the ways in which the sentry acts on them.
// Nothing in here knows what a guest process or a signal is; kernel/task builds those on top.

#include <sys/types.h>

#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/platform/filter.h"
#include "kernel/platform/listener.h"
#include "kernel/platform/shared_area.h"

namespace moat::platform {

class HostProcess;

/// A thread of a host process. Its listener may be shared with a parent it was forked from.
class HostThread final : public RefCounted {
  public:
    HostThread(RefPtr<HostProcess> process, int slot, pid_t tid, RefPtr<Listener> listener);
    ~HostThread() override;

    HostProcess& process() const { return *process_; }
    int slot_index() const { return slot_; }
    volatile Slot& slot() const;
    pid_t tid() const { return tid_; }
    Listener& listener() const { return *listener_; }
    RefPtr<Listener> listener_ref() const { return listener_; }

    /// Whose guest code it runs (a kernel::Task); null while parked.
    RefPtr<RefCounted> owner() const;
    void set_owner(RefPtr<RefCounted> owner);
    /// The unanswered EVENT's notification while the thread is in the stub.
    uint64_t event_id = 0;

    /// Writes registers and FPU pointer for the next resume(). `fpstate` 0: a clean FPU.
    void load(const arch::Registers& registers, uint64_t fpstate);
    /// Leaves the stub for guest code. The thread must be in an EVENT.
    bool resume() { return listener_->reply(event_id, 0); }
    /// As resume(), after the stub has copied `size` bytes within the process.
    bool copy_and_resume(uint64_t to, uint64_t from, uint64_t size);
    /// Makes the thread enter the stub (EVENT with MOAT_KICK) as soon as it can.
    void kick();
    /// A kick has been sent and no EVENT has been seen since; kick_watch.h.
    bool kick_unanswered() const { return kick_unanswered_.load(std::memory_order_relaxed); }
    void kick_answered() { kick_unanswered_.store(false, std::memory_order_relaxed); }
    /// Has the stub make `orders`, in order, stopping at the first that fails, and checks each by
    /// value before it runs. Returns the last one's result (a negative errno is one). The thread
    /// must be in an EVENT, and the caller be the receiver of its listener. ESRCH: the process is
    /// gone, or was killed for not doing as told.
    Result<int64_t> run_orders(std::span<const Order> orders);
    /// Ends the thread's direct calls of `groups` (filter.h), for good: from now on each comes to
    /// the sentry, by SIGSYS. As for run_orders(); a thread that cannot be brought to it loses its
    /// process.
    void end_direct_calls(uint8_t groups);
    /// Those that it still makes and its process may no longer: to be ended before it next runs
    /// guest code.
    uint8_t ending_direct_calls() const;
    /// Whether it waits in the host, which guest code does only in a direct call. False for one
    /// that is gone.
    bool sleeps() const;
    /// As run_orders(), with the sentry's `host_fd` lent to the process at MOAT_LEND_FD. It stays
    /// there until another is lent: no two threads of a process can use the number at a time.
    Result<int64_t> run_orders_with(int host_fd, std::span<const Order> orders);

  private:
    friend class HostProcess;
    void write_orders(std::span<const Order> orders);
    Result<int64_t> watch_orders(std::span<const Order> orders);

    const RefPtr<HostProcess> process_;
    const int slot_;
    const pid_t tid_;
    const RefPtr<Listener> listener_;
    std::atomic<bool> kick_unanswered_{false};
    std::atomic<uint8_t> direct_calls_{kAllDirectCalls};
    mutable Mutex<LockRank::kPlatform> mu_;
    RefPtr<RefCounted> owner_ GUARDED_BY(mu_);
};

/// A host process: one guest address space. Killed when the last guest process leaves it.
class HostProcess final : public RefCounted {
  public:
    /// Starts the root zygote. Once, at boot, before the sentry's own filter is installed, since
    /// every guest process inherits what the zygote has.
    static Status start_platform();
    /// A zygote of its own for one container, so that its processes are born in its cgroups:
    /// `pid` is to be written to their cgroup.procs before anything is forked from it.
    static Result<RefPtr<HostProcess>> create_zygote();
    /// A clean process from this zygote with one parked thread, from the pool if it has one.
    Result<RefPtr<HostProcess>> spawn_from_zygote();
    /// Drops the pool's processes of a zygote that is about to be killed.
    void drain_pool();

    /// Forks `thread`, which must be in an EVENT and whose listener's receiver the caller must be.
    /// The child has one thread, parked in its stub. It shares the caller's listener as long as few
    /// do; a child beyond those has one of its own, and another slot than its parent.
    static Result<RefPtr<HostProcess>> fork(HostThread& thread);
    /// A parked thread: a spare one or a new one. Made by the spawner, with a listener of its own,
    /// where there is a spawner, else by `caller` (in an EVENT, receiver as for fork), sharing its.
    Result<RefPtr<HostThread>> acquire_thread(HostThread& caller);
    /// A parked thread of a process just spawned or forked; null when there is none.
    RefPtr<HostThread> take_parked();
    /// Gives up a thread that sits in an unanswered EVENT.
    void park(RefPtr<HostThread> thread);

    void kill();
    /// Which direct calls (filter.h) its threads may make. Once ended, for good, for what is forked
    /// from it, too; kernel/task/direct_calls.h tells the threads.
    uint8_t direct_calls() const { return direct_calls_.load(); }
    void end_direct_calls(uint8_t groups) {
        direct_calls_.fetch_and(static_cast<uint8_t>(~groups));
    }
    bool dead() const { return dead_.load(std::memory_order_acquire); }
    pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }
    bool has_spawner() const { return has_spawner_; }
    volatile Slot& slot(int index) const;

    /// Called by the reaper once for each process that ended, whatever the reason. Set at boot.
    using DeathHandler = void (*)(HostProcess& process, int wait_status);
    static void set_death_handler(DeathHandler handler);

    /// Of the address space's owner (kernel::AddressSpace); opaque here. Guarded by the owner.
    std::atomic<void*> owner{nullptr};

    HostProcess(pid_t pid, ScopedFd pidfd, ScopedFd area_fd, void* area, bool has_spawner);
    ~HostProcess() override;

  private:
    friend class HostThread;
    struct Pool;
    struct CloneResult {
        pid_t tid = 0;
        uint64_t event_id = 0;  ///< the child's
        uint64_t value = 0;     ///< what the child says with it
    };
    static void watch_deaths();
    static void register_process(RefPtr<HostProcess> process);
    Result<RefPtr<HostProcess>> fork_zygote();
    Result<RefPtr<HostProcess>> make_clean();
    Result<RefPtr<HostThread>> order_thread();
    static Result<RefPtr<HostProcess>> fork_by(HostThread& thread);
    Status end_thread(RefPtr<HostThread> thread);
    Result<CloneResult> watch_clone(HostThread& thread, const Order& order, uint64_t child_kind);
    volatile AreaHeader& header() const;
    Result<int> take_slot();
    void release_slot(int index);

    const pid_t pid_;
    const ScopedFd pidfd_;
    ScopedFd area_fd_;
    void* area_;
    const bool has_spawner_;
    std::atomic<uint8_t> direct_calls_{kAllDirectCalls};
    std::atomic<bool> dead_{false};
    std::atomic<bool> killed_{false};  // by us: the status it ends with tells nothing
    std::unique_ptr<Pool> pool_;       // zygotes only

    mutable Mutex<LockRank::kPlatform> mu_;
    std::bitset<MOAT_MAX_THREADS> used_slots_ GUARDED_BY(mu_);
    std::vector<RefPtr<HostThread>> parked_ GUARDED_BY(mu_);  // a cycle that death cuts
    uint32_t sequence_ = 0;                                   // spawner_mu_
    std::mutex spawner_mu_;  // one order to the spawner at a time; held while it answers
    std::mutex lending_mu_;  // one use of the lent numbers at a time; held while a thread obeys
};

/// Whether a notification is the stub talking. A guest may jump to that instruction, but then the
/// stub's code runs on after it, so what the sentry waits for is carried out or the process dies.
bool is_event(const Notification& notification);
/// Address of the host's vDSO in every guest process.
uint64_t vdso_address();
/// Reads or writes another process's memory with that memory's own protection. Bytes moved until
/// the first fault.
size_t read_memory(const HostProcess& process, void* destination, uint64_t source, size_t size);
size_t write_memory(const HostProcess& process, uint64_t destination, const void* source,
                    size_t size);

}  // namespace moat::platform
