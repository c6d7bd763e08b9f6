#pragma once

// The control protocol between runtime/ and a sentry.
//
// A unix stream socket `control.sock` in the sandbox's state directory (the sentry gets the
// listening descriptor). Each message is a 4-byte little-endian length, then that many bytes of
// JSON, with descriptors attached to the first byte (SCM_RIGHTS). A request is {"method": M, ...},
// its answer
// {"ok": true, ...} or {"ok": false, "errno": N, "message": "step: why"}. A connection carries one
// request at a time; `wait` and `events` hold it until there is something to say, and closing it
// cancels them. "fds" in a request names the attached descriptors in their order.
//
// clang-format off
// method            fields                                      answer
// boot              plan: SandboxPlan, fds: exit_status?        {}  (the sentry is confined and ready)
// create_container  plan: ContainerPlan, attach_stdin?, fds:    {}  (oom_count?: the file whose "oom_kill N"
//                   gofer, stdin, ...                           counts the container's victims)
// start             id                                          {pid}  (guest pid of the init)
// exec              id, process: ProcessPlan, fds               {exec_id, pid}
// signal            id, signal, all, exec_id?, init_default?    {}  (ESRCH: not running)
// wait              id, exec_id?                                {exit: ExitStatus}
// state             id                                          {state, pid, exit?}
// list              -                                           {containers: [{id, state, pid, exit?}]}
// ps                id                                          {processes: [ProcessInfo]}
// stats             id                                          {tasks, pids_limit, processes, file_descriptors,
//                                                               sockets, open_files_limit?, upper_bytes,
//                                                               upper_inodes, syscalls}
// pause, resume     id                                          {}
// attach            id, fds: stdin?, stdout?, stderr?           {}  (ESRCH: not running)
// resize            id, exec_id?, rows, columns                 {}
// reopen_log        id, fds: log                                {}
// update            id, limits: ShownLimits                     {}
// update_sandbox    memory_bytes                                {}
// destroy           id                                          {}  (kills, waits, forgets)
// events            -                                           a stream of {event, id, exec_id?, exit?};
//                                                               event: started, exited, oom
// stacks            -                                           {text}  (every task and what it waits for)
// unsupported       -                                           {calls: {name: count}}
// shutdown          -                                           {}  then the sentry exits
//
// attach_stdin: "always" or "once": the init's stdin, which the plan leaves null, is what `attach` brings;
// "once": the end of the first that is attached is end of file.
// init_default: an init without a handler for the signal is not spared (pid_namespaces(7)).
// clang-format on

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/control/plan.h"

namespace moat::control {

using Json = nlohmann::json;

/// Longer messages are refused by both sides with EMSGSIZE.
inline constexpr size_t kMaxMessage = 8 << 20;
inline constexpr size_t kMaxFds = 64;

struct Message {
    Json body;
    std::vector<ScopedFd> fds;
};

/// Sends one message; blocks until it is written. Errors: EMSGSIZE, EPIPE, ...
Status send_message(int socket, const Json& body, const std::vector<int>& fds = {});
/// Receives one message; blocks. ECONNRESET at end of file; EBADMSG for what is not JSON or has
/// more descriptors than kMaxFds (they are closed).
Result<Message> receive_message(int socket);

/// Reading fields of a peer's JSON never throws: a missing or ill-typed field gives `fallback`.
std::string get_string(const Json& object, std::string_view key, std::string fallback = "");
int64_t get_int(const Json& object, std::string_view key, int64_t fallback = 0);
bool get_bool(const Json& object, std::string_view key, bool fallback = false);

/// "created", "running", "paused", "stopped": also the words of OCI's state.
const char* container_state_name(ContainerState state);
Result<ContainerState> container_state_from_name(std::string_view name);

Json to_json(const SandboxPlan& plan);
Json to_json(const ContainerPlan& plan);
Json to_json(const ProcessPlan& plan);
Json to_json(const ShownLimits& limits);
Json to_json(const ExitStatus& status);
Json to_json(const ProcessInfo& info);
/// EBADMSG where a field has the wrong type or an unknown value.
Result<SandboxPlan> sandbox_plan_from_json(const Json& json);
Result<ContainerPlan> container_plan_from_json(const Json& json);
Result<ProcessPlan> process_plan_from_json(const Json& json);
Result<ShownLimits> shown_limits_from_json(const Json& json);
Result<ExitStatus> exit_status_from_json(const Json& json);
Result<ProcessInfo> process_info_from_json(const Json& json);

}  // namespace moat::control
