#include "kernel/boot/server.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>

#include "kernel/base/log.h"
#include "kernel/control/messages.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/strace/strace.h"

namespace moat::kernel {

namespace {

using control::Json;

constexpr size_t kConnectionStack = 256 << 10;

Json refusal(const Failure& failure) {
    return {{"ok", false}, {"errno", failure.error}, {"message", failure.message}};
}

Json answer(const Outcome<>& outcome) {
    return outcome.ok() ? Json{{"ok", true}} : refusal(outcome.error());
}

NamedFds name_fds(control::Message& message) {
    NamedFds named;
    const auto names = message.body.find("fds");
    if (names == message.body.end() || !names->is_array()) {
        return named;
    }
    size_t i = 0;
    for (const auto& name : *names) {
        if (i < message.fds.size() && name.is_string()) {
            named[name.get<std::string>()] = std::move(message.fds[i]);
        }
        i++;
    }
    return named;
}

const char* state_name(control::ContainerState state) {
    switch (state) {
        case control::ContainerState::kCreated:
            return "created";
        case control::ContainerState::kRunning:
            return "running";
        case control::ContainerState::kPaused:
            return "paused";
        case control::ContainerState::kStopped:
            return "stopped";
    }
    return "unknown";
}

Json state_json(const Sandbox::State& state) {
    Json json{{"id", state.id}, {"state", state_name(state.state)}, {"pid", state.pid}};
    if (state.exit) {
        json["exit"] = control::to_json(*state.exit);
    }
    return json;
}

Failure malformed(const std::string& what) { return {EBADMSG, what}; }

class Connection {
  public:
    Connection(ScopedFd socket, Sandbox& sandbox) : socket_(std::move(socket)), sandbox_(sandbox) {}

    void serve() {
        for (;;) {
            auto message = control::receive_message(socket_.get());
            if (!message.ok()) {
                return;
            }
            const std::string method = control::get_string(message->body, "method");
            if (method == "events") {
                stream_events();
                return;
            }
            const Sandbox::Answering answering(sandbox_);
            const Json reply = handle(method, *message);
            if (!control::send_message(socket_.get(), reply).ok()) {
                return;
            }
            if (method == "shutdown") {
                // The host kernel ends every guest process with its init, which is this process.
                LOG(kInfo, "boot", "shut down by request");
                ::_exit(0);
            }
        }
    }

  private:
    Json handle(const std::string& method, control::Message& message) {
        const Json& body = message.body;
        const std::string id = control::get_string(body, "id");
        const std::string exec_id = control::get_string(body, "exec_id");
        if (method == "create_container") {
            const auto plan = body.contains("plan")
                                  ? control::container_plan_from_json(body["plan"])
                                  : Errno(EBADMSG);
            if (!plan.ok()) {
                return refusal(malformed("create_container: malformed plan"));
            }
            const std::string attach = control::get_string(body, "attach_stdin");
            std::optional<AttachedInput::Once> input;
            if (!attach.empty()) {
                input = attach == "once" ? AttachedInput::Once::kYes : AttachedInput::Once::kNo;
            }
            return answer(sandbox_.create_container(*plan, name_fds(message), input));
        }
        if (method == "start") {
            const auto pid = sandbox_.start(id);
            return pid.ok() ? Json{{"ok", true}, {"pid", *pid}} : refusal(pid.error());
        }
        if (method == "exec") {
            const auto plan = body.contains("process")
                                  ? control::process_plan_from_json(body["process"])
                                  : Errno(EBADMSG);
            if (!plan.ok()) {
                return refusal(malformed("exec: malformed process"));
            }
            const auto started = sandbox_.exec(id, *plan, name_fds(message));
            return started.ok()
                       ? Json{{"ok", true}, {"exec_id", started->first}, {"pid", started->second}}
                       : refusal(started.error());
        }
        if (method == "signal") {
            const auto on_init = control::get_bool(body, "init_default")
                                     ? Sandbox::OnInit::kDefault
                                     : Sandbox::OnInit::kIgnored;
            return answer(sandbox_.signal(id, exec_id,
                                          static_cast<int>(control::get_int(body, "signal")),
                                          control::get_bool(body, "all"), on_init));
        }
        if (method == "wait") {
            const auto exit = sandbox_.wait(id, exec_id, socket_.get());
            return exit.ok() ? Json{{"ok", true}, {"exit", control::to_json(*exit)}}
                             : refusal(exit.error());
        }
        if (method == "state") {
            const auto state = sandbox_.state(id);
            if (!state.ok()) {
                return refusal(state.error());
            }
            Json json = state_json(*state);
            json["ok"] = true;
            return json;
        }
        if (method == "list") {
            Json containers = Json::array();
            for (const auto& state : sandbox_.list()) {
                containers.push_back(state_json(state));
            }
            return {{"ok", true}, {"containers", std::move(containers)}};
        }
        if (method == "ps") {
            const auto found = sandbox_.processes(id);
            if (!found.ok()) {
                return refusal(found.error());
            }
            Json processes = Json::array();
            for (const auto& process : *found) {
                processes.push_back(control::to_json(process));
            }
            return {{"ok", true}, {"processes", std::move(processes)}};
        }
        if (method == "stats") {
            const auto stats = sandbox_.stats(id);
            if (!stats.ok()) {
                return refusal(stats.error());
            }
            Json json{{"ok", true},
                      {"tasks", stats->tasks},
                      {"pids_limit", stats->pids_limit},
                      {"processes", stats->processes},
                      {"file_descriptors", stats->file_descriptors},
                      {"sockets", stats->sockets},
                      {"upper_bytes", stats->upper_bytes},
                      {"upper_inodes", stats->upper_inodes},
                      {"syscalls", stats->syscalls}};
            if (stats->open_files_limit) {
                json["open_files_limit"] = *stats->open_files_limit;
            }
            return json;
        }
        if (method == "pause" || method == "resume") {
            return answer(sandbox_.set_paused(id, method == "pause"));
        }
        if (method == "resize") {
            return answer(
                sandbox_.resize(id, exec_id, static_cast<uint16_t>(control::get_int(body, "rows")),
                                static_cast<uint16_t>(control::get_int(body, "columns"))));
        }
        if (method == "attach") {
            return answer(sandbox_.attach(id, name_fds(message)));
        }
        if (method == "reopen_log") {
            NamedFds fds = name_fds(message);
            const auto it = fds.find("log");
            if (it == fds.end()) {
                return refusal(malformed("reopen_log: no descriptor"));
            }
            return answer(sandbox_.reopen_log(id, std::move(it->second)));
        }
        if (method == "update") {
            const auto limits = body.contains("limits")
                                    ? control::shown_limits_from_json(body["limits"])
                                    : Errno(EBADMSG);
            return limits.ok() ? answer(sandbox_.change_limits(id, *limits))
                               : refusal(malformed("update: malformed limits"));
        }
        if (method == "update_sandbox") {
            set_machine_memory(static_cast<uint64_t>(control::get_int(body, "memory_bytes")));
            return {{"ok", true}};
        }
        if (method == "destroy") {
            return answer(sandbox_.destroy(id));
        }
        if (method == "stacks") {
            return {{"ok", true}, {"text", sandbox_.stacks()}};
        }
        if (method == "unsupported") {
            Json calls = Json::object();
            for (const auto& [name, count] : unsupported_counts()) {
                calls[name] = count;
            }
            return {{"ok", true}, {"calls", std::move(calls)}};
        }
        if (method == "shutdown") {
            return {{"ok", true}};
        }
        return refusal({ENOSYS, "unknown request: " + method});
    }

    void stream_events() {
        uint64_t seen = sandbox_.newest_event();
        if (!control::send_message(socket_.get(), {{"ok", true}}).ok()) {
            return;
        }
        for (;;) {
            const auto next = sandbox_.next_event(seen, socket_.get());
            if (!next.ok()) {
                return;
            }
            seen = next->first;
            const Sandbox::Event& event = next->second;
            Json json{{"ok", true}, {"event", event.kind}, {"id", event.id}};
            if (!event.exec_id.empty()) {
                json["exec_id"] = event.exec_id;
            }
            if (event.exit) {
                json["exit"] = control::to_json(*event.exit);
            }
            if (!control::send_message(socket_.get(), json).ok()) {
                return;
            }
        }
    }

    ScopedFd socket_;
    Sandbox& sandbox_;
};

void* connection_main(void* argument) {
    const std::unique_ptr<Connection> connection(static_cast<Connection*>(argument));
    connection->serve();
    return nullptr;
}

}  // namespace

Result<BootRequest> receive_boot(int listening_socket) {
    for (;;) {
        ScopedFd connection(::accept4(listening_socket, nullptr, nullptr, SOCK_CLOEXEC));
        if (!connection) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return Errno(errno);
        }
        auto message = control::receive_message(connection.get());
        if (!message.ok()) {
            continue;  // somebody looked whether we are there
        }
        if (control::get_string(message->body, "method") != "boot" ||
            !message->body.contains("plan")) {
            (void)control::send_message(connection.get(), refusal(malformed("not booted yet")));
            continue;
        }
        auto plan = control::sandbox_plan_from_json(message->body["plan"]);
        if (!plan.ok()) {
            (void)control::send_message(connection.get(),
                                        refusal(malformed("boot: malformed plan")));
            continue;
        }
        NamedFds fds = name_fds(*message);
        return BootRequest{std::move(connection), std::move(plan).value(),
                           std::move(fds["exit_status"])};
    }
}

void answer_boot(const BootRequest& request, const Outcome<>& outcome) {
    (void)control::send_message(request.connection.get(), answer(outcome));
}

void serve_control(int listening_socket, Sandbox& sandbox) {
    for (;;) {
        ScopedFd socket(::accept4(listening_socket, nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket) {
            if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE) {
                continue;
            }
            LOG(kError, "boot", "control socket: %s", strerror(errno));
            return;
        }
        auto connection = std::make_unique<Connection>(std::move(socket), sandbox);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, kConnectionStack);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_t thread;
        if (pthread_create(&thread, &attributes, connection_main, connection.get()) == 0) {
            (void)connection.release();
        }
        pthread_attr_destroy(&attributes);
    }
}

}  // namespace moat::kernel
