#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernel/arch/x86_64/registers.h"
#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/platform/host_process.h"
#include "kernel/task/block.h"
#include "kernel/task/credentials.h"
#include "kernel/task/signal.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class AddressSpace;
class Container;
class FdTable;
class FsContext;
class PidNamespace;
class SeccompFilter;
class ThreadGroup;

/// The call being served: numbers as the guest gave them.
struct SyscallArguments {
    uint64_t number = 0;
    uint64_t value[6] = {};
    uint64_t ip = 0;  ///< after the syscall instruction
};

/// A guest thread (Linux: struct task_struct). Shared by the tables that find it and by whoever
/// completes its blocked call. "Task-private" fields belong to whoever serves the task: its worker,
/// or the one thread that runs its continuation.
class Task final : public Waiter {
  public:
    Task(RefPtr<ThreadGroup> group, int32_t tid);
    ~Task() override;

    // Identity
    int32_t tid() const { return tid_.load(std::memory_order_relaxed); }
    ThreadGroup& group() const { return *group_; }
    int32_t pid() const;
    Container& container() const;
    PidNamespace& pid_namespace() const;
    std::string name() const;  ///< comm, at most 15 bytes
    void set_name(std::string_view name);

    // What the task uses. Each may be shared with other tasks (clone(2)).
    CredentialsRef credentials() const;
    void set_credentials(CredentialsRef credentials);
    FdTable& fds() const;
    FsContext& fs() const;
    AddressSpace& mm() const;
    // The same for other threads than the one that acts for the task: null once it has ended.
    RefPtr<AddressSpace> mm_ref() const;
    RefPtr<FdTable> fds_ref() const;
    RefPtr<FsContext> fs_ref() const;
    RefPtr<platform::HostThread> thread_ref() const;
    void set_thread(RefPtr<platform::HostThread> thread);
    void set_fds(RefPtr<FdTable> fds);
    void set_fs(RefPtr<FsContext> fs);
    void set_mm(RefPtr<AddressSpace> mm);
    bool has_capability(int capability) const { return credentials()->has_capability(capability); }
    /// The soft limit of RLIMIT_*.
    uint64_t rlimit(int resource) const;

    // seccomp(2): SECCOMP_MODE_* and, in filter mode, the newest filter. Only ever replaced by one
    // on top of it, by the task itself or by a thread of its group (TSYNC), under the task table's
    // lock.
    int seccomp_mode() const { return seccomp_mode_.load(std::memory_order_acquire); }
    const SeccompFilter* seccomp_filter() const {
        return seccomp_filter_.load(std::memory_order_acquire);
    }
    void set_seccomp(int mode, RefPtr<const SeccompFilter> filter);
    void inherit_seccomp(const Task& parent);

    // Guest memory. EFAULT where it is not mapped or not allowed; a copy that fails may have moved
    // some bytes. Each call reads or writes once: validate the copy, never read again.
    Status copy_in_bytes(void* destination, GuestAddr source, size_t size);
    Status copy_out_bytes(GuestAddr destination, const void* source, size_t size);
    template <typename T>
    Result<std::remove_const_t<T>> copy_in(UserPtr<T> source) {
        static_assert(std::is_trivially_copyable_v<T>);
        std::remove_const_t<T> value;
        TRY(copy_in_bytes(&value, source.address(), sizeof value));
        return value;
    }
    template <typename T>
    Status copy_out(UserPtr<T> destination, const std::remove_const_t<T>& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        return copy_out_bytes(destination.address(), &value, sizeof value);
    }
    /// `count` is the caller's to bound first.
    template <typename T>
    Result<std::vector<std::remove_const_t<T>>> copy_in_array(UserPtr<T> source, size_t count) {
        std::vector<std::remove_const_t<T>> values(count);
        TRY(copy_in_bytes(values.data(), source.address(), count * sizeof(T)));
        return values;
    }
    /// A NUL-terminated string of at most `max` bytes with the NUL; `too_long` beyond.
    Result<std::string> copy_in_string(UserPtr<const char> source, size_t max, Errno too_long);
    /// PATH_MAX and ENAMETOOLONG; an empty path is allowed (the caller decides on ENOENT).
    Result<std::string> copy_in_path(UserPtr<const char> source);

    // Signal frames (task-private, in the stub)
    friend Status push_signal_frame(Task&, const SignalInfo&, const SignalAction&, uint64_t);
    friend Status pop_signal_frame(Task&);

    /// When the call being served is one that only a stop interrupted: the deadline it had. For
    /// calls with relative times, which would else wait the whole time again.
    std::optional<Deadline> resumed_deadline() const;

    // The call being served (task-private)
    const SyscallArguments& arguments() const { return arguments_; }
    /// True when registers() holds the caller's full state and injected calls are possible; a
    /// handler that needs it returns kNeedStub when it is false and is called again.
    bool in_stub() const { return in_stub_; }
    arch::Registers& registers() { return registers_; }
    /// Its host thread, for injected calls (in the stub); afterwards moved_on() notes the new
    /// event.
    platform::HostThread& thread() { return *thread_; }
    void moved_on() { notification_ = thread_->event_id; }

    // Signals
    /// A signal that is not blocked is pending, or the task has to stop or die.
    bool has_interrupt();
    /// Makes `mask` the signal mask until the call has ended; then the old one comes back, after
    /// the frame of a handler that interrupts the call was made (ppoll, pselect6, sigsuspend, ...).
    void set_temporary_mask(uint64_t mask);
    void change_signal_mask(uint64_t mask);
    void force_signal(const SignalInfo& info);
    bool take_pending(uint64_t wanted, SignalInfo& info);
    uint64_t pending_set();  ///< its own and its group's
    uint64_t own_pending_set();
    uint64_t clear_child_tid() const { return clear_child_tid_; }
    int32_t parent_death_signal() const { return parent_death_signal_.load(); }
    void set_parent_death_signal(int32_t signal) { parent_death_signal_.store(signal); }
    bool dumpable() const { return dumpable_.load(); }
    void set_dumpable(bool dumpable) { dumpable_.store(dumpable); }
    void set_clear_child_tid(uint64_t address) { clear_child_tid_ = address; }
    uint64_t robust_list() const { return robust_list_; }
    void set_robust_list(uint64_t address) { robust_list_ = address; }
    const AlternateStack& alternate_stack() const { return alternate_stack_; }
    void set_alternate_stack(const AlternateStack& stack) { alternate_stack_ = stack; }
    uint32_t personality() const { return personality_.load(std::memory_order_relaxed); }
    void set_personality(uint32_t value) { personality_.store(value, std::memory_order_relaxed); }
    int64_t start_time_ns() const { return start_time_ns_; }
    uint64_t syscall_count() const { return syscalls_.load(std::memory_order_relaxed); }
    /// One letter as in proc(5), and what a blocked task waits in (the call's name, or empty).
    char state_letter() const;
    const char* blocked_in() const;
    uint64_t signal_mask() const { return signal_mask_.load(std::memory_order_relaxed); }

    /// What nice(2), sched_setscheduler(2), ioprio_set(2) and sched_setaffinity(2) left: told to
    /// those who ask, without effect on the host's scheduling. Inherited by clone(2).
    struct Scheduling {
        std::atomic<int32_t> nice{0}, policy{0}, io_priority{0};
        std::atomic<uint64_t> affinity{~0ull};  ///< of the first 64 CPUs
        std::atomic<int32_t> oom_score_adj{0};  ///< the leader's counts
        void copy_from(const Scheduling& other) {
            nice = other.nice.load(), policy = other.policy.load();
            io_priority = other.io_priority.load(), affinity = other.affinity.load();
            oom_score_adj = other.oom_score_adj.load();
        }
    };
    Scheduling scheduling;

    // Waiter: an event of a blocked call.
    void on_event(PollMask mask) override;

  private:
    friend class TaskRunner;     // task_run.cc: serving, blocking, completing
    friend class TaskLife;       // task_clone.cc, task_exec.cc, task_exit.cc
    friend class SignalControl;  // task_signals.cc, task_stop.cc
    friend class ThreadGroup;
    friend class PidNamespace;
    friend Result<int64_t> block(Task&, std::vector<WaitSource>, Deadline, Continuation);

    // States of a blocked call; flags are or'ed in by those who wake it.
    enum WaitState : uint32_t {
        kNotWaiting = 0,
        kPreparing = 1,  // block() was called; the server has not yet looked a first time
        kWaiting = 2,    // stored; the next flag's setter resumes it
        kResuming = 3,   // somebody runs the continuation
        kStateMask = 3,
        kFlagReady = 4,
        kFlagTimeout = 8,
        kFlagInterrupt = 16,
        kFlagMask = 28,
    };

    std::atomic<int32_t> tid_;  // changes only when a thread execs and becomes the leader
    const RefPtr<ThreadGroup> group_;

    mutable Mutex<LockRank::kTask> mu_;
    CredentialsRef credentials_ GUARDED_BY(mu_);
    RefPtr<FdTable> fds_;      // task-private to replace; others take it under mu_
    RefPtr<FsContext> fs_;     // as fds_
    RefPtr<AddressSpace> mm_;  // as fds_
    char name_[16] GUARDED_BY(mu_) = {};
    std::atomic<int> seccomp_mode_{0};
    // What the owning reference below holds, for readers without the lock; an older filter lives as
    // long as the newer ones on top of it.
    std::atomic<const SeccompFilter*> seccomp_filter_{nullptr};
    RefPtr<const SeccompFilter> seccomp_owner_ GUARDED_BY(mu_);

    // Who acts for the task. kGuest: its host thread runs guest code. kSentry: one thread of the
    // sentry serves it, or it is blocked or stopped. kGone: it has ended.
    enum class Serving : uint8_t { kGuest, kSentry, kGone };
    std::atomic<Serving> serving_{Serving::kSentry};

    // Being served (task-private)
    SyscallArguments arguments_;
    arch::Registers registers_{};
    uint64_t fpstate_ = 0;  // of the host frame; 0: the FPU starts clean
    struct FpuCopy {
        uint64_t to = 0, from = 0, size = 0;
    } fpu_copy_;  // a new thread's inheritance, made as it enters the guest
    bool in_stub_ = false;
    uint64_t notification_ = 0;            // id of the unanswered notification
    RefPtr<platform::HostThread> thread_;  // as fds_
    bool redo_ = false;                    // arguments_ are to be served again, in the stub
    struct Restart {
        bool pending = false;
        Errno code{EINTR};
        uint64_t number = 0;
        uint64_t ip = 0;
        bool resumes = false;  // made again without a handler: deadline_ holds on
        bool direct = false;   // it waited in the host: there is no deadline_
    } restart_;
    std::atomic<bool> stopped_{false};  // held in the stub until SIGCONT or SIGKILL

    // Blocked
    std::atomic<uint32_t> wait_state_{kNotWaiting};
    std::vector<WaitSource> wait_sources_;
    Continuation continuation_;
    Deadline deadline_;
    uint64_t timer_ = 0;

    // Signals: guarded by the group's signal lock
    std::atomic<uint64_t> signal_mask_{0};  // written by its own task only, read by senders
    uint64_t saved_mask_ = 0;               // task-private, for sigsuspend and its like
    bool restore_mask_ = false;
    PendingSignals pending_;
    std::atomic<bool> interrupt_{false};  // a cheap hint for has_interrupt()
    AlternateStack alternate_stack_;      // task-private

    uint64_t clear_child_tid_ = 0;  // set_tid_address(2); task-private
    uint64_t robust_list_ = 0;      // set_robust_list(2); task-private
    std::atomic<int32_t> parent_death_signal_{0};
    std::atomic<uint32_t> personality_{0};
    std::atomic<bool> dumpable_{true};
    int64_t start_time_ns_ = 0;  // CLOCK_MONOTONIC
    std::atomic<uint64_t> syscalls_{0};
};

}  // namespace moat::kernel
