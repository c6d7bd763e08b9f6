#include "unit/cri/fake_runtime.h"

#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <deque>

namespace moat::runtime {

namespace {

/// Streams that are open; guarded by FakeWorld::mu.
class FakeStream;
std::vector<FakeStream*> streams;

class FakeStream final : public EventStream {
  public:
    explicit FakeStream(std::string sandbox_id) : sandbox_id_(std::move(sandbox_id)) {
        streams.push_back(this);
    }
    ~FakeStream() override {
        const std::lock_guard lock(FakeWorld::get().mu);
        std::erase(streams, this);
    }
    Result<Event> next() override {
        std::unique_lock lock(FakeWorld::get().mu);
        changed_.wait(lock, [&] { return cancelled_ || gone_ || !events_.empty(); });
        if (cancelled_) {
            return Error(ECANCELED, "cancelled");
        }
        if (events_.empty()) {
            return Error(ECONNRESET, "the sentry is gone");
        }
        Event event = std::move(events_.front());
        events_.pop_front();
        return event;
    }
    void cancel() override {
        const std::lock_guard lock(FakeWorld::get().mu);
        cancelled_ = true;
        changed_.notify_all();
    }
    // The caller holds the world's mutex.
    void push(const Event& event) {
        events_.push_back(event);
        changed_.notify_all();
    }
    void break_off() {
        gone_ = true;
        changed_.notify_all();
    }
    const std::string& sandbox_id() const { return sandbox_id_; }

  private:
    std::string sandbox_id_;
    std::deque<Event> events_;
    std::condition_variable changed_;
    bool cancelled_ = false;
    bool gone_ = false;
};

void end_locked(FakeWorld& world, const std::string& id, int code, int signal, bool oom) {
    auto& container = world.containers.at(id);
    if (container.state == control::ContainerState::kStopped) {
        return;
    }
    container.state = control::ContainerState::kStopped;
    container.exit = control::ExitStatus{code, signal, oom, 1'000'000'000};
    for (FakeStream* stream : streams) {
        if (stream->sandbox_id() == container.sandbox_id) {
            stream->push({"exited", id, "", container.exit});
        }
    }
}

/// Notes the call; an error if the test wants one here. The caller holds the mutex.
Status note(const std::string& call, const std::string& id) {
    FakeWorld& world = FakeWorld::get();
    world.calls.push_back(call + " " + id.substr(0, 4));
    if (world.fail_at == call) {
        world.fail_at.clear();
        return Error(EIO, call + ": failed as the test wants");
    }
    return {};
}

}  // namespace

FakeWorld& FakeWorld::get() {
    static FakeWorld world;
    return world;
}

void FakeWorld::reset() {
    const std::lock_guard lock(mu);
    sandboxes.clear();
    containers.clear();
    calls.clear();
    fail_at.clear();
}

void FakeWorld::end(const std::string& id, int code, int signal, bool oom) {
    const std::lock_guard lock(mu);
    end_locked(*this, id, code, signal, oom);
}

void FakeWorld::kill_sandbox(const std::string& id) {
    const std::lock_guard lock(mu);
    sandboxes[id] = false;
    for (auto& [container_id, container] : containers) {
        if (container.sandbox_id == id) {
            container.state = control::ContainerState::kStopped;
        }
    }
    for (FakeStream* stream : streams) {
        if (stream->sandbox_id() == id) {
            stream->break_off();
        }
    }
}

Status FakeRuntime::create_sandbox(const SandboxConfig& config) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("create_sandbox", config.id));
    FakeWorld::get().sandboxes[config.id] = true;
    return {};
}

Status FakeRuntime::destroy_sandbox(const std::string& id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    TRY(note("destroy_sandbox", id));
    world.sandboxes.erase(id);
    std::erase_if(world.containers,
                  [&](const auto& entry) { return entry.second.sandbox_id == id; });
    for (FakeStream* stream : streams) {
        if (stream->sandbox_id() == id) {
            stream->break_off();
        }
    }
    return {};
}

Status FakeRuntime::create(const CreateConfig& config) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    TRY(note("create", config.id));
    // The only sandbox there is in these tests.
    FakeWorld::Container container;
    container.sandbox_id = world.sandboxes.begin()->first;
    container.bundle = config.bundle;
    world.containers[config.id] = container;
    if (config.stdio.cri_log_fd >= 0 && write(config.stdio.cri_log_fd, "created\n", 8) != 8) {
        return Error(EIO, "log");
    }
    return {};
}

Status FakeRuntime::start(const std::string& id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("start", id));
    FakeWorld::get().containers.at(id).state = control::ContainerState::kRunning;
    return {};
}

Result<ContainerInfo> FakeRuntime::state(const std::string& id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    ContainerInfo info;
    info.id = id;
    if (world.sandboxes.contains(id)) {
        info.sentry_pid = world.sandboxes[id] ? 1234 : 0;
        return info;
    }
    const auto it = world.containers.find(id);
    if (it == world.containers.end()) {
        return Error(ENOENT, "no container " + id);
    }
    info.state = it->second.state;
    info.exit = it->second.exit;
    info.sentry_pid = world.sandboxes[it->second.sandbox_id] ? 1234 : 0;
    return info;
}

Status FakeRuntime::kill(const std::string& id, int signal, bool) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    TRY(note("kill " + std::to_string(signal), id));
    const auto it = world.containers.find(id);
    if (it == world.containers.end() || it->second.state == control::ContainerState::kStopped) {
        return Error(ESRCH, "it does not run");
    }
    if (signal == 9 || !it->second.ignores_term) {
        end_locked(world, id, 0, signal, false);
    }
    return {};
}

Status FakeRuntime::remove(const std::string& id, bool) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("remove", id));
    return FakeWorld::get().containers.erase(id) != 0 ? Status()
                                                      : Status(Error(ENOENT, "no container " + id));
}

Result<std::string> FakeRuntime::exec(const std::string& id, const ExecConfig& config) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("exec", id));
    const std::string text = config.args.size() > 1 ? config.args[1] : "";
    if (write(config.stdio.stdout_fd, text.data(), text.size()) !=
            static_cast<ssize_t>(text.size()) ||
        write(config.stdio.stderr_fd, "err", 3) != 3) {
        return Error(EIO, "write");
    }
    return config.args[0];
}

namespace {
std::condition_variable exec_killed;
bool hung_exec_ended = false;
}  // namespace

Result<ExitStatus> FakeRuntime::wait_exec(const std::string&, const std::string& exec_id) {
    std::unique_lock lock(FakeWorld::get().mu);
    if (exec_id == "hang") {
        exec_killed.wait(lock, [] { return hung_exec_ended; });
        return ExitStatus{0, 9, false, 0};
    }
    return ExitStatus{exec_id == "fail" ? 7 : 0, 0, false, 0};
}

Status FakeRuntime::kill_exec(const std::string& id, const std::string&, int) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("kill_exec", id));
    hung_exec_ended = true;
    exec_killed.notify_all();
    return {};
}

Status FakeRuntime::attach(const std::string& id, const AttachStdio&) {
    const std::lock_guard lock(FakeWorld::get().mu);
    return note("attach", id);
}

Status FakeRuntime::reopen_log(const std::string& id, int log_fd) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("reopen_log", id));
    return write(log_fd, "reopened\n", 9) == 9 ? Status() : Status(Error(EIO, "log"));
}

Result<std::unique_ptr<EventStream>> FakeRuntime::events(const std::string& sandbox_id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    if (!world.sandboxes.contains(sandbox_id) || !world.sandboxes[sandbox_id]) {
        return Error(ECONNRESET, "the sentry is gone");
    }
    return std::unique_ptr<EventStream>(new FakeStream(sandbox_id));
}

bool FakeRuntime::sandbox_alive(const std::string& sandbox_id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    FakeWorld& world = FakeWorld::get();
    return world.sandboxes.contains(sandbox_id) && world.sandboxes[sandbox_id];
}

Result<Stats> FakeRuntime::stats(const std::string& id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("stats", id));
    return Stats();
}

Result<Stats> FakeRuntime::sandbox_stats(const std::string& id) {
    const std::lock_guard lock(FakeWorld::get().mu);
    TRY(note("sandbox_stats", id));
    return Stats();
}

}  // namespace moat::runtime
