#pragma once

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/platform/host_process.h"
#include "kernel/platform/listener.h"
#include "kernel/task/task.h"

namespace moat::kernel {

/// How a task's calls are taken, held and answered. A task is acted for by one thread at a time:
/// its worker from the notification on, then whoever resumes it (task.h, Serving).
class TaskRunner {
  public:
    /// A notification of a host thread whose owner is `task`.
    static void serve(Task& task, platform::HostThread& thread,
                      const platform::Notification& notification);
    /// Gives the call's result and goes on in the guest.
    static void complete(Task& task, Result<int64_t> result);
    /// In the stub, registers in task.registers(): stops, ends, delivers signals, then resumes.
    static void return_to_guest(Task& task);
    /// First entry of a task whose thread and registers are set.
    static void start(Task& task);
    /// A signal, stop or exit concerns the task: whatever it does, it looks. Queued on the
    /// WakeScope.
    static void poke(Task& task);
    /// Now; no lock may be held.
    static void poke_now(Task& task);
    /// Its address space allows fewer direct calls than before (direct_calls.h): a host thread that
    /// runs guest code is called in, for any other whoever lets it go on looks.
    static void call_in_for_direct_calls(Task& task);
    /// Ends the call under way for good and serves it again in the stub.
    static void redo_in_stub(Task& task);

  private:
    friend class Task;
    friend Result<int64_t> block(Task&, std::vector<WaitSource>, Deadline, Continuation);
    static void dispatch(Task& task);
    static void finish(Task& task, Result<int64_t> result);
    static void begin_wait(Task& task);
    static void post_flag(Task& task, uint32_t flag);
    static void resume_wait(Task& task, uint32_t flags);
    static void end_wait(Task& task);
    static void note_interrupted_futex(Task& task);
    static void load_event(Task& task, platform::HostThread& thread, uint64_t id);
    static void enter_guest(Task& task);
};

/// on_event() masks beyond those of poll(2): see TaskRunner::poke and SIGCONT.
inline constexpr PollMask kPokeEvent = 1u << 31;

enum class LeavingOwn : bool { kNo, kYes };
/// Gives `listener`, unless it has one, a thread that receives from it and serves its tasks until
/// none is left. With kYes a calling worker whose own listener has no other thread than the one it
/// is serving, which leaves it (execve), takes the new one over.
void attach_worker(RefPtr<platform::Listener> listener, LeavingOwn leaving);
/// Whether the calling thread is the worker that receives from `listener`.
bool receives_from(const platform::Listener& listener);

}  // namespace moat::kernel
