// moat-sentry --control-fd N: the guest kernel of one pod. The runtime has started it as the init
// of a host pid namespace, in an empty root, without capabilities; it confines itself further
// before the first guest instruction. When it dies, for whatever reason, the host kernel ends every
// guest process.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/base/log.h"
#include "kernel/base/version.h"
#include "kernel/boot/host_seccomp.h"
#include "kernel/boot/server.h"
#include "kernel/boot/subsystems.h"
#include "kernel/platform/host_process.h"
#include "kernel/platform/root_zygote.h"
#include "kernel/strace/strace.h"
#include "kernel/task/task_life.h"

namespace {

using namespace moat;

int usage() {
    fprintf(stderr, "usage: moat-sentry --control-fd N [--cgroup-fd N]...\n");
    return 2;
}

LogLevel level_named(const std::string& name) {
    if (name == "debug") {
        return LogLevel::kDebug;
    }
    return name == "warning" ? LogLevel::kWarning
           : name == "error" ? LogLevel::kError
                             : LogLevel::kInfo;
}

kernel::Outcome<> boot(const kernel::BootRequest& request) {
    if (const auto started = kernel::start_subsystems(request.plan); !started.ok()) {
        return kernel::Failure{started.error().value(), std::string("start the kernel's parts: ") +
                                                            strerror(started.error().value())};
    }
    if (const auto confined = kernel::install_sentry_filter(); !confined.ok()) {
        return kernel::Failure{confined.error().value(), std::string("confine the sentry: ") +
                                                             strerror(confined.error().value())};
    }
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    int control_fd = -1;
    std::vector<ScopedFd> cgroups;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--control-fd") == 0 && i + 1 < argc) {
            control_fd = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--cgroup-fd") == 0 && i + 1 < argc) {
            cgroups.emplace_back(atoi(argv[++i]));
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("moat-sentry %s\n", kVersion);
            return 0;
        } else {
            return usage();
        }
    }
    if (control_fd < 0) {
        return usage();
    }
    log_configure(STDERR_FILENO, LogLevel::kInfo, "moat-sentry");
    signal(SIGPIPE, SIG_IGN);

    // Privileges go before the zygote is made, the filter comes after: guest processes inherit
    // both.
    if (const auto dropped = kernel::drop_privileges(); !dropped.ok()) {
        LOG(kError, "boot", "drop privileges: %s", strerror(dropped.error().value()));
        return 1;
    }
    platform::HostProcess::set_death_handler(kernel::TaskLife::host_process_died);
    platform::set_root_zygote_cgroups(std::move(cgroups));
    const auto platform = platform::HostProcess::start_platform();
    auto request = kernel::receive_boot(control_fd);
    if (!request.ok()) {
        LOG(kError, "boot", "control socket: %s", strerror(request.error().value()));
        return 1;
    }
    log_configure(STDERR_FILENO, level_named(request->plan.log_level), "moat-sentry");
    kernel::set_strace(request->plan.strace);
    const kernel::Outcome<> outcome =
        platform.ok() ? boot(*request)
                      : kernel::Outcome<>(kernel::Failure{platform.error().value(),
                                                          std::string("start the platform: ") +
                                                              strerror(platform.error().value())});
    kernel::answer_boot(*request, outcome);
    if (!outcome.ok()) {
        LOG(kError, "boot", "%s", outcome.error().message.c_str());
        return 1;
    }
    kernel::Sandbox sandbox(request->plan, std::move(request->exit_status));
    request->connection.reset();
    kernel::serve_control(control_fd, sandbox);
    return 1;
}
