#pragma once

#include <string>
#include <vector>

#include "runtime/native/monitor/runc.h"

namespace moat::monitor {

/// What the command line says. One process a container, or an exec; it lives as long as that does,
/// without moatd.
struct Options {
    Program program;
    std::string id;
    std::string bundle;
    std::string state;                ///< the container's state directory
    std::string events;               ///< the pod's: ID.monitor and ID.exit are written there
    std::vector<std::string> cgroup;  ///< directories of the container's cgroup
    bool terminal = false;
    bool log = false;    ///< descriptor 4 is the log
    bool stdin = false;  ///< what attaches may write
    bool stdin_once = false;
    std::string process;  ///< exec: file with the OCI process
    unsigned rows = 0, columns = 0;
};

/// Descriptor 3 gets "ready\n" once the container can be started and attached to, or "error
/// TEXT\n". It is made by the request "start" on control.sock; the file `starting` of its state
/// says that this has begun, `init` ("PID STARTTIME") that it has succeeded, and ID.exit, code 128,
/// that it has failed.
int monitor_container(const Options& options);
/// Descriptor 3 is one end of a stream socket: it gets "pid N\n" or "error TEXT\n", then
/// "exit CODE SIGNAL TIME\n", and may send "resize ROWS COLUMNS\n". 4, 5, 6 are the process's
/// streams; with a terminal 4 is where it is bridged to.
int monitor_exec(const Options& options);

inline constexpr int kAnswerFd = 3;

/// Writes all of it; whoever is gone does not matter.
void send_text(int fd, const std::string& text);
/// Reads SIGCHLDs from `signals` and reaps whoever has ended; true once `pid` has, with its status.
bool reap(int signals, pid_t pid, int& status);
/// A signalfd of SIGCHLD, which is blocked from here on.
ScopedFd child_signals();
void set_window(int terminal, unsigned rows, unsigned columns);

}  // namespace moat::monitor
