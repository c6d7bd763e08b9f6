// A test double of moat-sentry: speaks the control protocol; a "guest process" is a child that
// joins the container's cgroup and, when started, does what its arguments say:
//   print TEXT CODE   TEXT on stdout, then exit with CODE
//   pause             until a signal ends it
// A sandbox whose hostname is "crash" dies at boot, with a word in its log.

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "kernel/control/messages.h"

using namespace moat;
using namespace moat::control;

namespace {

// The cgroups of a container that is alone in its sandbox: its guests are born there (--cgroup-fd).
std::vector<int> lone_cgroups;

struct Process {
    pid_t pid = 0;
    ScopedFd go;  ///< closed to let it start
    bool started = false;
    std::optional<ExitStatus> exit;
};

struct Container {
    ProcessPlan plan;
    ScopedFd gofer;
    Process init;
    std::map<std::string, Process> execs;
};

std::mutex mu;
std::condition_variable changed;
std::map<std::string, Container> containers;

[[noreturn]] void child(const ProcessPlan& plan, int go, int joined,
                        const std::map<std::string, int>& fds) {
    for (const int fd : lone_cgroups) {
        if (write(fd, "0", 1) != 1) {
            _exit(125);
        }
    }
    for (const auto& [name, fd] : fds) {
        if (name.rfind("cgroup:", 0) == 0 && write(fd, "0", 1) != 1) {
            _exit(101);
        }
    }
    close(joined);
    char byte;
    [[maybe_unused]] ssize_t n = read(go, &byte, 1);
    if (!plan.args.empty() && plan.args[0] == "print" && plan.args.size() == 3) {
        const auto out = fds.find("stdout");
        if (out != fds.end()) {
            n = write(out->second, plan.args[1].data(), plan.args[1].size());
        }
        _exit(atoi(plan.args[2].c_str()));
    }
    for (;;) {
        pause();
    }
}

/// Called with `mu` held.
void spawn(Process& process, const ProcessPlan& plan, const std::map<std::string, int>& fds) {
    int go[2];
    int joined[2];
    if (pipe(go) != 0 || pipe(joined) != 0) {
        abort();
    }
    process.pid = fork();
    if (process.pid == 0) {
        close(go[1]);
        child(plan, go[0], joined[1], fds);
    }
    close(go[0]);
    close(joined[1]);
    // As the sentry's: what is created is in its cgroups.
    char byte;
    [[maybe_unused]] const ssize_t n = read(joined[0], &byte, 1);
    close(joined[0]);
    process.go.reset(go[1]);
    std::thread([pid = process.pid] {
        int status;
        waitpid(pid, &status, 0);
        const std::lock_guard lock(mu);
        for (auto& [id, container] : containers) {
            const auto finish = [&](Process& p) {
                if (p.pid == pid) {
                    ExitStatus exit;
                    exit.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
                    exit.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
                    exit.finished_at_ns = time(nullptr) * 1000000000ll;
                    p.exit = exit;
                }
            };
            finish(container.init);
            for (auto& [name, exec] : container.execs) {
                finish(exec);
            }
        }
        changed.notify_all();
    }).detach();
}

Json refuse(int code, const char* text) {
    return {{"ok", false}, {"errno", code}, {"message", text}};
}

Json state_of(const Container& c) {
    Json json = {{"ok", true}, {"pid", 1}};
    json["state"] = c.init.exit ? "stopped" : c.init.started ? "running" : "created";
    if (c.init.exit) {
        json["exit"] = to_json(*c.init.exit);
    }
    return json;
}

Json handle(Message& request) {
    const Json& body = request.body;
    const std::string method = get_string(body, "method");
    const std::string id = get_string(body, "id");
    std::unique_lock lock(mu);
    if (method == "boot") {
        const auto plan = sandbox_plan_from_json(body["plan"]);
        if (!plan.ok()) {
            return refuse(EBADMSG, "boot: malformed plan");
        }
        if (plan->hostname == "crash") {
            fprintf(stderr, "fake sentry: asked to crash\n");
            _exit(3);
        }
        return {{"ok", true}};
    }
    if (method == "create_container") {
        const auto plan = container_plan_from_json(body["plan"]);
        if (!plan.ok() || !body.contains("fds") || body["fds"].size() != request.fds.size()) {
            return refuse(EBADMSG, "create_container: malformed plan");
        }
        Container& c = containers[plan->id];
        c.plan = plan->process;
        std::map<std::string, int> fds;
        for (size_t i = 0; i < request.fds.size(); i++) {
            const std::string name = body["fds"][i].get<std::string>();
            fds[name] = request.fds[i].get();
        }
        spawn(c.init, plan->process, fds);
        for (size_t i = 0; i < request.fds.size(); i++) {
            if (body["fds"][i] == "gofer") {
                c.gofer = std::move(request.fds[i]);
            }
        }
        return {{"ok", true}};
    }
    if (method == "shutdown") {
        _exit(0);
    }
    const auto it = containers.find(id);
    if (it == containers.end()) {
        return refuse(ENOENT, "no such container");
    }
    Container& c = it->second;
    const std::string exec_id = get_string(body, "exec_id");
    Process& process = exec_id.empty() ? c.init : c.execs[exec_id];
    if (method == "start") {
        c.init.started = true;
        c.init.go.reset();
        return {{"ok", true}, {"pid", 1}};
    }
    if (method == "exec") {
        const auto plan = process_plan_from_json(body["process"]);
        if (!plan.ok()) {
            return refuse(EBADMSG, "exec: malformed process");
        }
        const std::string name = "exec-" + std::to_string(c.execs.size());
        std::map<std::string, int> fds;
        for (size_t i = 0; i < request.fds.size(); i++) {
            fds[body["fds"][i].get<std::string>()] = request.fds[i].get();
        }
        spawn(c.execs[name], *plan, fds);
        c.execs[name].go.reset();
        return {{"ok", true}, {"exec_id", name}, {"pid", 2}};
    }
    if (method == "state") {
        return state_of(c);
    }
    if (method == "signal") {
        if (process.exit || process.pid == 0) {
            return refuse(ESRCH, "it has ended");
        }
        kill(process.pid, static_cast<int>(get_int(body, "signal")));
        return {{"ok", true}};
    }
    if (method == "wait") {
        changed.wait(lock, [&] { return process.exit.has_value(); });
        return {{"ok", true}, {"exit", to_json(*process.exit)}};
    }
    if (method == "ps") {
        ProcessInfo info;
        info.pid = 1;
        info.command = c.plan.args[0];
        return {{"ok", true}, {"processes", Json::array({to_json(info)})}};
    }
    if (method == "update") {
        const auto limits = shown_limits_from_json(body["limits"]);
        // A test says so by this number.
        return limits.ok() && limits->pids != 13 ? Json{{"ok", true}}
                                                 : refuse(EIO, "as the test wants");
    }
    if (method == "stats") {
        return {{"ok", true},          {"tasks", 1},        {"processes", 1},
                {"upper_bytes", 4096}, {"upper_inodes", 1}, {"file_descriptors", 3}};
    }
    if (method == "destroy") {
        kill(c.init.pid, SIGKILL);
        changed.wait(lock, [&] { return c.init.exit.has_value(); });
        containers.erase(id);
        return {{"ok", true}};
    }
    return refuse(ENOSYS, "the fake does not know that");
}

}  // namespace

int main(int argc, char** argv) {
    // As the sentry's: one control socket, then the cgroups of a lone container.
    bool usable = argc >= 3 && argc % 2 == 1 && strcmp(argv[1], "--control-fd") == 0;
    for (int i = 3; usable && i < argc; i += 2) {
        usable = strcmp(argv[i], "--cgroup-fd") == 0;
        if (usable) {
            lone_cgroups.push_back(atoi(argv[i + 1]));
        }
    }
    if (!usable) {
        fprintf(stderr, "fake sentry: bad arguments\n");
        return 2;
    }
    // What a sentry may rely on, checked where it can be: its place in the world.
    if (getpid() != 1 || getuid() != 65534 || access("/proc/self/stat", F_OK) != 0 ||
        access("/etc", F_OK) == 0) {
        fprintf(stderr, "fake sentry: pid %d, uid %d: not the sandbox it should be in\n", getpid(),
                getuid());
        return 2;
    }
    const int listener = atoi(argv[2]);
    for (;;) {
        const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (socket < 0) {
            continue;
        }
        std::thread([socket] {
            const ScopedFd owned(socket);
            for (;;) {
                auto request = receive_message(socket);
                if (!request.ok() || !send_message(socket, handle(*request)).ok()) {
                    return;
                }
            }
        }).detach();
    }
}
