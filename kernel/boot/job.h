#pragma once

#include <functional>
#include <optional>

#include "kernel/boot/failure.h"
#include "kernel/control/plan.h"
#include "kernel/fs/stdio/attachments.h"
#include "kernel/fs/stdio/cri_log.h"
#include "kernel/fs/stdio/host_console.h"
#include "kernel/task/container.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

/// A process that the control server started: a container's init or an exec.
struct Job {
    RefPtr<ThreadGroup> group;
    RefPtr<CriLogSink> log;
    RefPtr<HostConsole> console;
    RefPtr<Attachments> attached;  ///< null: its streams are somebody's descriptors
    std::optional<control::ExitStatus> exit;
};

/// Borrowed for the call, but for the container.
struct JobRequest {
    RefPtr<Container> container;
    const control::ProcessPlan& process;
    NamedFds& fds;  ///< what becomes part of the job is taken out
    bool is_init = false;
    std::optional<AttachedInput::Once> attach_input = std::nullopt;  ///< stdin is what attaches
    std::function<void(int wait_status)> on_exit;
};

/// A process with its streams and all that its plan says, which TaskLife::start() lets run.
Outcome<Job> make_job(JobRequest request);

}  // namespace moat::kernel
