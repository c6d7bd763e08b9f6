#include "kernel/task/task_run.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/mm/address_space.h"
#include "kernel/strace/strace.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/seccomp.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_signals.h"
#include "kernel/time/clock.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

namespace {

/// si_code of a SIGSYS raised by the seccomp filter's TRAP.
constexpr int kSysSeccomp = 1;

/// The task whose handler or continuation the calling thread runs.
thread_local const Task* handling = nullptr;

}  // namespace

// ---------------------------------------------------------------- taking a call

void TaskRunner::load_event(Task& task, platform::HostThread& thread, uint64_t id) {
    thread.event_id = id;
    task.in_stub_ = true;
    task.notification_ = id;
    // One copy out of memory that the guest's other threads can write.
    const volatile platform::Slot& slot = thread.slot();
    memcpy(&task.registers_, const_cast<const arch::Registers*>(&slot.registers),
           sizeof task.registers_);
    task.fpstate_ = slot.fpstate;
}

void TaskRunner::serve(Task& task, platform::HostThread& thread,
                       const platform::Notification& notification) {
    auto expected = Task::Serving::kGuest;
    if (!task.serving_.compare_exchange_strong(expected, Task::Serving::kSentry)) {
        // It has ended meanwhile. Its host thread is of use if the process lives on.
        if (platform::is_event(notification)) {
            thread.event_id = notification.id;
            thread.process().park(RefPtr<platform::HostThread>(&thread));
        } else {
            thread.kick();
            thread.listener().reply(notification.id, -EINTR);
        }
        return;
    }
    if (!platform::is_event(notification)) {
        task.in_stub_ = false;
        task.notification_ = notification.id;
        task.arguments_.number = notification.number;
        task.arguments_.ip = notification.ip;
        std::copy(std::begin(notification.arguments), std::end(notification.arguments),
                  task.arguments_.value);
        dispatch(task);
        return;
    }
    load_event(task, thread, notification.id);
    const uint64_t kind = notification.arguments[0];
    const auto code = static_cast<int>(notification.arguments[1]);
    arch::Registers& r = task.registers_;
    if (kind == SIGSYS && code == kSysSeccomp) {
        task.arguments_ = {r.rax, {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}, r.rip};
        dispatch(task);
    } else if (kind == MOAT_KICK || kind == MOAT_EV_BATCH) {
        if (task.redo_ && (kind == MOAT_EV_BATCH || r.rip == task.arguments_.ip)) {
            task.redo_ = false;
            dispatch(task);
        } else {
            if (kind == MOAT_KICK) {
                note_interrupted_futex(task);
            }
            return_to_guest(task);
        }
    } else if (kind > 0 && kind < 32) {
        SignalInfo info;
        info.signo = static_cast<int32_t>(kind);
        info.code = code;
        info.fault.address = notification.arguments[2];
        force_signal(task, info);
        return_to_guest(task);
    } else {
        // The guest jumped into the stub with a kind that the sentry did not ask for.
        TaskLife::exit_group(task, SIGSEGV);
    }
}

// A kick takes a thread out of a direct futex wait. The host has made it either one that begins
// anew, or, where it had a timeout, one that returned EINTR; Linux would do either only to run a
// handler. So both become a call of ours that was interrupted. Where the thread had not begun to
// wait yet, a signal right behind its call would have looked the same.
void TaskRunner::note_interrupted_futex(Task& task) {
    arch::Registers& r = task.registers_;
    const uint64_t operation = r.rsi & ~uint64_t{FUTEX_CLOCK_REALTIME};
    const bool anew = r.rax == SYS_futex &&
                      (operation == FUTEX_WAIT_PRIVATE || operation == FUTEX_WAIT_BITSET_PRIVATE);
    // Not FUTEX_WAIT, whose timeout would begin anew, too: guests expect its EINTR.
    const bool timed =
        static_cast<int64_t>(r.rax) == -EINTR && operation == FUTEX_WAIT_BITSET_PRIVATE;
    if (!anew && !timed) {
        return;
    }
    constexpr uint16_t kSyscallInstruction = 0x050f;
    const uint64_t instruction = anew ? r.rip : r.rip - 2;
    const auto found = task.copy_in(UserPtr<const uint16_t>(instruction));
    if (!found.ok() || *found != kSyscallInstruction) {
        return;
    }
    r.rip = instruction + 2;
    r.rax = static_cast<uint64_t>(-EINTR);
    task.restart_ = {.pending = true,
                     .code = anew ? kRestartSys : kRestartNoHand,
                     .number = SYS_futex,
                     .ip = r.rip,
                     .resumes = false,
                     .direct = true};
}

void TaskRunner::dispatch(Task& task) {
    task.syscalls_.fetch_add(1, std::memory_order_relaxed);
    const SyscallEntry* entry = find_syscall(task.arguments_.number);
    if (strace_enabled()) [[unlikely]] {
        strace_enter(task, entry);
    }
    if (task.seccomp_mode() != 0 && !seccomp_admits(task)) {
        return;
    }
    Result<int64_t> result = Errno(ENOSYS);
    handling = &task;
    if (entry != nullptr && entry->handler != nullptr) [[likely]] {
        result = entry->handler(task);
    } else if (entry != nullptr && entry->support == Support::kRefused) {
        result = Errno(entry->refusal);
    } else {
        result = unsupported(entry != nullptr ? entry->name : "unknown call", ENOSYS);
    }
    handling = nullptr;
    if (result.ok() || !(result.error() == kNeedStub)) {
        task.restart_.resumes = false;
    }
    finish(task, std::move(result));
}

void TaskRunner::finish(Task& task, Result<int64_t> result) {
    if (!result.ok()) {
        const Errno error = result.error();
        if (error == kBlocked) {
            begin_wait(task);
            return;
        }
        if (error == kNoReturn) {
            if (task.serving_.load() == Task::Serving::kSentry) {
                return_to_guest(task);
            }
            return;
        }
        if (error == kNeedStub) {
            redo_in_stub(task);
            return;
        }
        if (error == kContinueOnHost) {
            if (task.in_stub_) {
                // Brought here for another reason (a redo): make the same call as an order.
                platform::Order order{task.arguments_.number};
                std::copy(std::begin(task.arguments_.value), std::end(task.arguments_.value),
                          order.arguments);
                complete(task, [&]() -> Result<int64_t> {
                    const int64_t value = TRY(task.thread_->run_orders(std::span(&order, 1)));
                    task.notification_ = task.thread_->event_id;
                    if (value < 0 && value >= -4095) {
                        return Errno(static_cast<int>(-value));
                    }
                    return value;
                }());
                return;
            }
            const RefPtr<platform::HostThread> thread = task.thread_;
            const uint64_t id = task.notification_;
            task.serving_.store(Task::Serving::kGuest);
            if (task.interrupt_.load() || thread->ending_direct_calls() != 0) {
                thread->kick();
            }
            thread->listener().let_run(id);
            return;
        }
    }
    complete(task, std::move(result));
}

void TaskRunner::redo_in_stub(Task& task) {
    task.redo_ = true;
    const RefPtr<platform::HostThread> thread = task.thread_;
    const uint64_t id = task.notification_;
    if (task.in_stub_) {
        // A batch of nothing: the stub reports at once, to the worker.
        const platform::Order nothing{MOAT_COPY, {0, 0, 0}};
        memcpy(const_cast<platform::Order*>(&thread->slot().orders[0]), &nothing, sizeof nothing);
        task.serving_.store(Task::Serving::kGuest);
        thread->listener().reply(id, 1);
        return;
    }
    task.serving_.store(Task::Serving::kGuest);
    thread->kick();
    thread->listener().reply(id, -ENOSYS);
}

// ---------------------------------------------------------------- answering

void TaskRunner::complete(Task& task, Result<int64_t> result) {
    if (strace_enabled()) [[unlikely]] {
        strace_exit(task, result);
    }
    int64_t value = result.ok() ? result.value() : -result.error().value();
    const bool restart = !result.ok() && result.error().value() >= kRestartSys.value();
    if (restart || (!result.ok() && result.error() == EINTR)) {
        task.restart_ = {.pending = restart,
                         .code = result.ok() ? Errno(EINTR) : result.error(),
                         .number = task.arguments_.number,
                         .ip = task.arguments_.ip};
        value = -EINTR;
    } else {
        task.restart_.pending = false;
    }
    if (task.in_stub_) {
        task.registers_.rax = static_cast<uint64_t>(value);
        return_to_guest(task);
        return;
    }
    if (group_is_exiting(task)) {
        TaskLife::exit_task(task, 0);
        return;
    }
    const RefPtr<platform::HostThread> thread = task.thread_;
    const uint64_t id = task.notification_;
    const bool special = task.restart_.pending || task.restore_mask_;
    // From here on others may act for the task: a signal's sender sees kGuest and kicks.
    task.serving_.store(Task::Serving::kGuest);
    if (special || task.interrupt_.load() || thread->ending_direct_calls() != 0) {
        thread->kick();  // it enters the stub as soon as the reply lets it
    }
    thread->listener().reply(id, value);
}

void TaskRunner::enter_guest(Task& task) {
    const RefPtr<platform::HostThread> thread = task.thread_;
    // By its worker only, who hears the orders' notifications; anybody else has it called in again.
    const uint8_t ending = thread->ending_direct_calls();
    if (ending != 0 && receives_from(thread->listener())) [[unlikely]] {
        thread->end_direct_calls(ending);
    }
    thread->load(task.registers_, task.fpstate_);
    task.serving_.store(Task::Serving::kGuest);
    if (task.interrupt_.load() || thread->ending_direct_calls() != 0) {
        thread->kick();
    }
    if (task.fpu_copy_.size != 0) [[unlikely]] {
        const auto copy = std::exchange(task.fpu_copy_, {});
        thread->copy_and_resume(copy.to, copy.from, copy.size);
        return;
    }
    thread->resume();
}

void TaskRunner::call_in_for_direct_calls(Task& task) {
    if (task.serving_.load() != Task::Serving::kGuest) {
        return;  // whoever answers it looks
    }
    if (const RefPtr<platform::HostThread> thread = task.thread_ref()) {
        thread->kick();
    }
}

void TaskRunner::return_to_guest(Task& task) {
    for (;;) {
        // Cleared before looking: a sender after this sets it again and kicks or is seen below.
        task.interrupt_.store(false);
        switch (deliver_signals(task)) {
            case Delivery::kExit:
                TaskLife::exit_task(task, 0);
                return;
            case Delivery::kExitGroup:
                return;  // deliver_signals() has ended the group
            case Delivery::kStop:
                return;  // held until poke_now() sees stopped_ taken away
            case Delivery::kReturn:
                break;
        }
        enter_guest(task);
        return;
    }
}

void TaskRunner::start(Task& task) {
    task.thread_->set_owner(RefPtr<RefCounted>(&task));
    task.in_stub_ = true;
    task.notification_ = task.thread_->event_id;
    return_to_guest(task);
}

// ---------------------------------------------------------------- waiting

Result<int64_t> block(Task& task, std::vector<WaitSource> sources, Deadline deadline,
                      Continuation continuation) {
    task.wait_sources_ = std::move(sources);
    task.deadline_ = deadline;
    task.continuation_ = std::move(continuation);
    task.wait_state_.store(Task::kPreparing);
    for (const WaitSource& source : task.wait_sources_) {
        source.queue->add(&task, source.mask);
    }
    return kBlocked;
}

std::optional<Deadline> Task::resumed_deadline() const {
    if (!restart_.resumes || restart_.number != arguments_.number || restart_.ip != arguments_.ip) {
        return std::nullopt;
    }
    return deadline_;
}

void TaskRunner::begin_wait(Task& task) {
    if (!task.deadline_.is_never()) {
        RefPtr<Task> ref(&task);
        task.timer_ =
            start_timer(task.deadline_.ns, [ref] { post_flag(*ref, Task::kFlagTimeout); });
    }
    // The first look after registration; an event meanwhile has left its flag.
    resume_wait(task, task.has_interrupt() ? Task::kFlagInterrupt : Task::kFlagReady);
}

void TaskRunner::post_flag(Task& task, uint32_t flag) {
    uint32_t state = task.wait_state_.load();
    for (;;) {
        switch (state & Task::kStateMask) {
            case Task::kNotWaiting:
                return;
            case Task::kWaiting:
                if (task.wait_state_.compare_exchange_weak(state, Task::kResuming)) {
                    resume_wait(task, flag);
                    return;
                }
                break;
            default:
                if (task.wait_state_.compare_exchange_weak(state, state | flag)) {
                    return;
                }
                break;
        }
    }
}

void TaskRunner::resume_wait(Task& task, uint32_t flags) {
    for (;;) {
        Wake wake = Wake::kReady;
        if ((flags & Task::kFlagInterrupt) != 0) {
            wake = Wake::kInterrupted;
        } else if ((flags & Task::kFlagTimeout) != 0 && monotonic_ns() >= task.deadline_.ns) {
            wake = Wake::kTimeout;  // else a timer of an earlier wait came late
        }
        handling = &task;
        Result<int64_t> result = task.continuation_(task, wake);
        handling = nullptr;
        if (result.ok() || !(result.error() == kBlocked)) {
            end_wait(task);
            finish(task, std::move(result));
            return;
        }
        if (wake != Wake::kInterrupted && task.has_interrupt()) {
            flags = Task::kFlagInterrupt;  // perhaps a signal that the continuation itself has sent
            continue;
        }
        // Still not. Flags that came meanwhile make us look again.
        uint32_t state = task.wait_state_.load();
        for (;;) {
            if ((state & Task::kFlagMask) != 0) {
                if (task.wait_state_.compare_exchange_weak(state, Task::kResuming)) {
                    flags = state & Task::kFlagMask;
                    break;
                }
            } else if (task.wait_state_.compare_exchange_weak(state, Task::kWaiting)) {
                return;
            }
        }
    }
}

void TaskRunner::end_wait(Task& task) {
    task.wait_state_.store(Task::kNotWaiting);
    for (const WaitSource& source : task.wait_sources_) {
        source.queue->remove(&task);
    }
    task.wait_sources_.clear();
    if (task.timer_ != 0) {
        cancel_timer(task.timer_);
        task.timer_ = 0;
    }
    Continuation done = std::move(task.continuation_);
    task.continuation_ = nullptr;
    // `done` owns what the queues lived by; it goes last.
}

void TaskRunner::poke(Task& task) {
    if (&task == handling) {
        // Its call under way looks at the flag before it returns or waits. A kick would come after
        // the return, but a signal to oneself is there when kill(2) returns.
        task.interrupt_.store(true);
        return;
    }
    WakeScope::post(RefPtr<Waiter>(&task), kPokeEvent);
}

void TaskRunner::poke_now(Task& task) {
    task.interrupt_.store(true);
    if (task.stopped_.exchange(false)) {
        return_to_guest(task);
        return;
    }
    if (task.serving_.load() == Task::Serving::kGuest) {
        if (group_is_exiting(task)) {
            auto expected = Task::Serving::kGuest;
            const RefPtr<AddressSpace> mm = task.mm_ref();
            if (mm && (mm->users() == 1 || mm->process().dead()) &&
                task.serving_.compare_exchange_strong(expected, Task::Serving::kSentry)) {
                task.in_stub_ = false;
                TaskLife::exit_task(task, 0);
                return;
            }
        }
        if (const RefPtr<platform::HostThread> thread = task.thread_ref()) {
            thread->kick();
        }
        return;
    }
    post_flag(task, Task::kFlagInterrupt);
}

}  // namespace moat::kernel
