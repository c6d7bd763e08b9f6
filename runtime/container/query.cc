#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <fstream>

#include <atomic>

#include "runtime/container/impl.h"

namespace moat::runtime {

namespace {

constexpr int kStatsTimeoutMs = 300;
/// Of one among many that a scrape asks.
constexpr int kCountersTimeoutMs = 200;

/// What wait(2) would tell of a process that the kernel killed with its sentry.
ExitStatus killed_exit(bool oom) {
    ExitStatus status;
    status.signal = SIGKILL;
    status.oom_killed = oom;
    status.finished_at_ns = now_ns();
    return status;
}

/// Remembers an exit in the record, so that it is still known when the sentry is not. Best effort:
/// a container that changes just now is locked, and asked again later.
void remember(const std::string& state_root, const std::string& id, const ExitStatus& exit) {
    auto directory = StateDirectory::open(state_root, id, LockMode::kExclusive);
    if (!directory.ok()) {
        return;
    }
    auto record = directory->load();
    if (record.ok() && !record->exit) {
        record->exit = exit;
        (void)directory->save(*record);
    }
}

/// The exit that ended the sandbox, which its sentry wrote down before it exited likewise.
std::optional<ExitStatus> last_word(const std::string& state_root, const Record& record) {
    const auto directory = StateDirectory::open(state_root, record.sandbox_id, LockMode::kNone);
    return directory.ok() ? directory->recorded_exit() : std::nullopt;
}

Result<ExitStatus> exit_of(const control::Json& answer) {
    const auto it = answer.find("exit");
    if (it == answer.end()) {
        return Error(EBADMSG, "the sentry's answer has no exit status");
    }
    auto status = control::exit_status_from_json(*it);
    if (!status.ok()) {
        return Error(EBADMSG, "the sentry's answer has a malformed exit status");
    }
    return *status;
}

class SentryEvents final : public EventStream {
  public:
    explicit SentryEvents(ControlClient client) : client_(std::move(client)) {}

    Result<Event> next() override {
        for (;;) {
            auto message = client_.receive();
            if (cancelled_) {
                return Error::from_errno(ECANCELED, "wait for events");
            }
            if (!message.ok()) {
                return message.error();
            }
            Event event;
            event.kind = control::get_string(*message, "event");
            if (event.kind.empty()) {
                continue;  // the {"ok": true} that begins the stream
            }
            event.container_id = control::get_string(*message, "id");
            event.exec_id = control::get_string(*message, "exec_id");
            if (message->contains("exit")) {
                event.exit = TRY(exit_of(*message));
            }
            return event;
        }
    }
    void cancel() override {
        cancelled_ = true;
        ::shutdown(client_.fd(), SHUT_RDWR);
    }

  private:
    ControlClient client_;
    std::atomic<bool> cancelled_{false};
};

}  // namespace

SentryRuntime::SentryRuntime(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
SentryRuntime::~SentryRuntime() = default;

Result<const cgroups::Manager*> SentryRuntime::Impl::manager() {
    const std::lock_guard lock(manager_mutex_);
    if (!manager_) {
        manager_ = TRY_STEP("find the cgroups", cgroups::detect());
    }
    return manager_.get();
}

Result<ControlClient> SentryRuntime::Impl::connect(const std::string& sandbox_id) {
    const auto directory =
        TRY(StateDirectory::open(options.state_root, sandbox_id, LockMode::kNone));
    auto client = ControlClient::connect(directory.fd());
    if (!client.ok() &&
        (client.error().code() == ECONNREFUSED || client.error().code() == ENOENT)) {
        return Error(ECONNRESET, "the sentry of sandbox " + sandbox_id + " is gone");
    }
    return client;
}

Result<Record> SentryRuntime::Impl::load(const std::string& id) {
    const auto directory = TRY(StateDirectory::open(options.state_root, id, LockMode::kNone));
    auto record = directory.load();
    if (!record.ok() && record.error().code() == ENOENT) {
        return Error(ENOENT, "container " + id + " does not exist");
    }
    return record;
}

Result<control::Json> SentryRuntime::Impl::call(const std::string& id, const std::string& method,
                                                control::Json fields,
                                                const std::vector<NamedFd>& fds) {
    const Record record = TRY(load(id));
    if (!record.has_container) {
        return Error(EINVAL, id + " is a sandbox, not a container");
    }
    auto client = TRY(connect(record.sandbox_id));
    fields["id"] = id;
    return client.call(method, std::move(fields), fds);
}

Result<std::vector<std::string>> SentryRuntime::Impl::members(const std::string& sandbox_id) {
    std::vector<std::string> out;
    for (const std::string& id : TRY(list_ids(options.state_root))) {
        if (id == sandbox_id) {
            continue;
        }
        const auto record = load(id);
        if (record.ok() && record->sandbox_id == sandbox_id) {
            out.push_back(id);
        }
    }
    return out;
}

Result<ContainerInfo> SentryRuntime::Impl::info(const StateDirectory& directory,
                                                const Record& record) {
    ContainerInfo info;
    info.id = record.id;
    info.sandbox_id = record.sandbox_id;
    info.bundle = record.bundle;
    info.created_at_ns = record.created_at_ns;
    info.annotations = record.annotations;
    info.exit = record.exit;
    Record sandbox;
    if (record.has_sandbox) {
        sandbox = record;
    } else if (auto other = load(record.sandbox_id); other.ok()) {
        sandbox = std::move(other).value();
    }
    const bool alive = sandbox.sentry.alive();
    info.sentry_pid = alive ? sandbox.sentry.pid : 0;
    if (!record.complete) {
        // Creating, or left by a creation that was killed: only removal makes sense of it.
        info.state = alive ? ContainerState::kCreated : ContainerState::kStopped;
        return info;
    }
    if (!record.has_container) {
        info.state = alive ? ContainerState::kRunning : ContainerState::kStopped;
        return info;
    }
    if (alive) {
        auto client = record.has_sandbox ? ControlClient::connect(directory.fd())
                                         : connect(record.sandbox_id);
        if (client.ok()) {
            const auto answer = client->call("state", {{"id", record.id}});
            if (answer.ok()) {
                const auto state =
                    control::container_state_from_name(control::get_string(*answer, "state"));
                if (!state.ok()) {
                    return Error(EBADMSG,
                                 "state " + record.id + ": the sentry names an unknown state");
                }
                info.state = *state;
                if (answer->contains("exit")) {
                    info.exit = TRY(exit_of(*answer));
                }
                return info;
            }
            if (answer.error().code() != ECONNRESET) {
                return answer.error().within("state " + record.id);
            }
        }
        info.sentry_pid = 0;
    }
    // The sentry is dead, and everything that ran in it.
    info.state = ContainerState::kStopped;
    if (!info.exit && record.has_sandbox) {
        info.exit = directory.recorded_exit();
    }
    if (!info.exit) {
        bool oom = false;
        if (const auto machine = manager(); machine.ok()) {
            const auto stats = (*machine)->statistics(
                record.has_sandbox ? record.pod_cgroup + "/sentry" : record.container_cgroup);
            oom = stats.ok() && stats->oom_kills > 0;
        }
        info.exit = killed_exit(oom);
    }
    return info;
}

Result<ContainerInfo> SentryRuntime::state(const std::string& id) {
    ContainerInfo info;
    bool note = false;
    {
        const auto directory =
            TRY(StateDirectory::open(impl_->options.state_root, id, LockMode::kNone));
        auto record = directory.load();
        if (!record.ok()) {
            if (record.error().code() == ENOENT) {
                return Error(ENOENT, "container " + id + " does not exist");
            }
            return record.error();
        }
        info = TRY(impl_->info(directory, *record));
        note = record->complete && !record->exit && info.exit.has_value();
    }
    if (note) {
        remember(impl_->options.state_root, id, *info.exit);
    }
    return info;
}

Result<std::vector<ContainerInfo>> SentryRuntime::list() {
    std::vector<ContainerInfo> out;
    for (const std::string& id : TRY(list_ids(impl_->options.state_root))) {
        // One that goes away, or is broken, does not hide the others.
        if (auto one = state(id); one.ok()) {
            out.push_back(std::move(one).value());
        } else if (one.error().code() != ENOENT) {
            ContainerInfo broken;
            broken.id = id;
            broken.state = ContainerState::kStopped;
            out.push_back(std::move(broken));
        }
    }
    return out;
}

Result<ExitStatus> SentryRuntime::wait(const std::string& id) {
    const std::string step = "wait for " + id;
    const Record record = TRY_STEP(step, impl_->load(id));
    if (record.exit) {
        return *record.exit;
    }
    ExitStatus exit;
    if (const auto answer = impl_->call(id, "wait"); answer.ok()) {
        exit = TRY_STEP(step, exit_of(*answer));
    } else {
        const auto last = last_word(impl_->options.state_root, record);
        if (answer.error().code() != ECONNRESET || !last) {
            return answer.error().within(step);
        }
        exit = record.has_sandbox ? *last : killed_exit(false);
    }
    remember(impl_->options.state_root, id, exit);
    return exit;
}

Result<ExitStatus> SentryRuntime::wait_exec(const std::string& id, const std::string& exec_id) {
    const std::string step = "wait for " + exec_id + " in " + id;
    const auto answer = impl_->call(id, "wait", {{"exec_id", exec_id}});
    if (answer.ok()) {
        return TRY_STEP(step, exit_of(*answer));
    }
    // The container's end is that of everything in its pid namespace.
    const auto record = impl_->load(id);
    if (answer.error().code() == ECONNRESET && record.ok() &&
        last_word(impl_->options.state_root, *record)) {
        return killed_exit(false);
    }
    return answer.error().within(step);
}

Result<std::vector<ProcessInfo>> SentryRuntime::processes(const std::string& id) {
    const std::string step = "list processes of " + id;
    const auto answer = TRY_STEP(step, impl_->call(id, "ps"));
    std::vector<ProcessInfo> out;
    if (const auto it = answer.find("processes"); it != answer.end() && it->is_array()) {
        for (const auto& item : *it) {
            auto one = control::process_info_from_json(item);
            if (!one.ok()) {
                return Error(EBADMSG, step + ": a malformed process in the sentry's answer");
            }
            out.push_back(std::move(one).value());
        }
    }
    return out;
}

Result<Stats> SentryRuntime::stats(const std::string& id) {
    const std::string step = "statistics of " + id;
    const Record record = TRY_STEP(step, impl_->load(id));
    if (!record.has_container) {
        return Error(EINVAL, step + ": it is a sandbox, not a container");
    }
    const auto* manager = TRY_STEP(step, impl_->manager());
    Stats out;
    static_cast<cgroups::Statistics&>(out) =
        TRY_STEP(step, manager->statistics(record.container_cgroup));
    out.cgroup = record.container_cgroup;
    // Guest tasks, not host tasks: pools and service threads of the platform are not the
    // container's.
    // A sentry that hangs costs its own containers these figures, and the node little time.
    auto client = impl_->connect(record.sandbox_id);
    if (!client.ok()) {
        return out;
    }
    if (const auto answer = client->call("stats", {{"id", id}}, {}, kStatsTimeoutMs); answer.ok()) {
        const auto figure = [&](const char* name) {
            return static_cast<uint64_t>(std::max<int64_t>(control::get_int(*answer, name), 0));
        };
        out.pids = figure("tasks");
        out.pids_limit = figure("pids_limit");
        out.processes = figure("processes");
        out.file_descriptors = figure("file_descriptors");
        out.sockets = figure("sockets");
        if (answer->contains("open_files_limit")) {
            out.open_files_limit = figure("open_files_limit");
        }
        out.writable_layer_bytes = figure("upper_bytes");
        out.writable_layer_inodes = figure("upper_inodes");
    }
    return out;
}

Result<Stats> SentryRuntime::sandbox_stats(const std::string& sandbox_id) {
    const std::string step = "statistics of sandbox " + sandbox_id;
    const Record record = TRY_STEP(step, impl_->load(sandbox_id));
    if (!record.has_sandbox) {
        return Error(EINVAL, step + ": it is a container, not a sandbox");
    }
    const auto* manager = TRY_STEP(step, impl_->manager());
    Stats out;
    static_cast<cgroups::Statistics&>(out) = TRY_STEP(step, manager->statistics(record.pod_cgroup));
    out.processes = manager->processes(record.pod_cgroup).size();
    out.cgroup = record.pod_cgroup;
    return out;
}

Result<SandboxCounters> SentryRuntime::sandbox_counters(const std::string& sandbox_id) {
    const std::string step = "counters of sandbox " + sandbox_id;
    const Record record = TRY_STEP(step, impl_->load(sandbox_id));
    auto client = TRY_STEP(step, impl_->connect(sandbox_id));
    const auto answer = TRY_STEP(step, client.call("unsupported", {}, {}, kCountersTimeoutMs));
    SandboxCounters counters;
    // A sentry that has been taken over may answer anything.
    if (const auto calls = answer.find("calls"); calls != answer.end() && calls->is_object()) {
        for (const auto& [name, count] : calls->items()) {
            if (count.is_number_unsigned()) {
                counters.unsupported[name] = count.template get<uint64_t>();
            }
        }
    }
    std::ifstream status("/proc/" + std::to_string(record.sentry.pid) + "/status");
    for (std::string line; std::getline(status, line);) {
        unsigned long long number = 0;
        if (sscanf(line.c_str(), "VmRSS: %llu kB", &number) == 1) {
            counters.memory_bytes = number * 1024;
        } else if (sscanf(line.c_str(), "Threads: %llu", &number) == 1) {
            counters.threads = number;
        }
    }
    return counters;
}

Result<std::unique_ptr<EventStream>> SentryRuntime::events(const std::string& sandbox_id) {
    const std::string step = "events of " + sandbox_id;
    auto client = TRY_STEP(step, impl_->connect(sandbox_id));
    const auto sent = control::send_message(client.fd(), {{"method", "events"}});
    if (!sent.ok()) {
        return Error::from_errno(sent.error().value(), step);
    }
    return std::unique_ptr<EventStream>(std::make_unique<SentryEvents>(std::move(client)));
}

Result<std::string> SentryRuntime::stacks(const std::string& sandbox_id) {
    auto client = TRY_STEP("stacks of " + sandbox_id, impl_->connect(sandbox_id));
    const auto answer = TRY_STEP("stacks of " + sandbox_id, client.call("stacks"));
    return control::get_string(answer, "text");
}

bool SentryRuntime::sandbox_alive(const std::string& sandbox_id) {
    const auto record = impl_->load(sandbox_id);
    return record.ok() && record->has_sandbox && record->sentry.alive();
}

}  // namespace moat::runtime
