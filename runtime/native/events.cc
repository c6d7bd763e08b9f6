// A pod's events: what its monitors write into one directory, its pause process's end, and the end
// of monitors that have said nothing.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <deque>

#include "kernel/base/log.h"
#include "runtime/container/state.h"
#include "runtime/native/native_runtime.h"

namespace moat::runtime {

namespace {

ScopedFd open_pidfd(pid_t pid) {
    return ScopedFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

class NativeEvents final : public EventStream {
  public:
    NativeEvents(NativeRuntime& runtime, std::string events, ScopedFd inotify, ScopedFd pause)
        : runtime_(runtime),
          events_(std::move(events)),
          inotify_(std::move(inotify)),
          pause_(std::move(pause)) {}

    void cancel() override { eventfd_write(cancelled_.get(), 1); }

    Result<Event> next() override {
        while (ready_.empty()) {
            std::vector<pollfd> fds = {{cancelled_.get(), POLLIN, 0},
                                       {inotify_.get(), POLLIN, 0},
                                       {pause_.get(), POLLIN, 0}};
            std::vector<std::string> ids;
            for (const auto& [id, pidfd] : monitors_) {
                ids.push_back(id);
                fds.push_back({pidfd.get(), POLLIN, 0});
            }
            if (::poll(fds.data(), fds.size(), -1) < 0) {
                continue;
            }
            if (fds[0].revents != 0) {
                return Error(ECANCELED, "events: cancelled");
            }
            if (fds[1].revents != 0) {
                read_names();
            }
            for (size_t i = 0; i < ids.size(); i++) {
                if (fds[3 + i].revents != 0) {
                    monitors_.erase(ids[i]);
                    // Settles one that ended without a word; its exit file comes as an event.
                    if (const auto state = runtime_.state(ids[i]);
                        !state.ok() && state.error().code() != ENOENT) {
                        LOG(kWarning, "native", "%s: its monitor is gone: %s", ids[i].c_str(),
                            state.error().message().c_str());
                    }
                }
            }
            if (fds[2].revents != 0 && ready_.empty()) {
                return Error(ECONNRESET, "events: the pod's pause process is gone");
            }
        }
        Event event = std::move(ready_.front());
        ready_.pop_front();
        return event;
    }

    /// A container that is there already or has just begun.
    void add_monitor(const std::string& id) {
        const ProcessRef monitor = read_monitor(events_, id);
        ScopedFd pidfd = open_pidfd(monitor.pid);
        if (pidfd && monitor.alive()) {
            monitors_[id] = std::move(pidfd);
        }
    }

  private:
    void read_names() {
        alignas(inotify_event) char buffer[8192];
        ssize_t n;
        while ((n = ::read(inotify_.get(), buffer, sizeof buffer)) > 0) {
            for (ssize_t at = 0; at < n;) {
                const auto* one = reinterpret_cast<const inotify_event*>(buffer + at);
                at += static_cast<ssize_t>(sizeof *one + one->len);
                name_appeared(one->len != 0 ? one->name : "");
            }
        }
    }

    void name_appeared(const std::string& name) {
        const size_t dot = name.rfind('.');
        const std::string id = name.substr(0, dot);
        const std::string suffix = dot == std::string::npos ? "" : name.substr(dot);
        if (suffix == ".monitor") {
            add_monitor(id);
        } else if (suffix == ".exit") {
            if (const auto exit = read_exit(events_, id)) {
                if (exit->oom_killed) {
                    ready_.push_back({"oom", id, "", std::nullopt});
                }
                ready_.push_back({"exited", id, "", exit});
            }
        }
    }

    NativeRuntime& runtime_;
    const std::string events_;
    const ScopedFd inotify_, pause_;
    const ScopedFd cancelled_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::map<std::string, ScopedFd> monitors_;
    std::deque<Event> ready_;
};

}  // namespace

Result<std::unique_ptr<EventStream>> NativeRuntime::events(const std::string& sandbox_id) {
    const std::string step = "events of " + sandbox_id;
    const auto pod = load_pod(sandbox_id);
    ScopedFd pause = pod.ok() ? open_pidfd(pod->pause.pid) : ScopedFd();
    if (!pod.ok() || !pod->pause.alive() || !pause) {
        return Error(ECONNRESET, step + ": the pod's pause process is gone");
    }
    const std::string directory = events_directory(sandbox_id);
    ScopedFd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!inotify || ::inotify_add_watch(inotify.get(), directory.c_str(), IN_MOVED_TO) < 0) {
        return Error::from_errno(errno, step + ": watch " + directory);
    }
    auto stream =
        std::make_unique<NativeEvents>(*this, directory, std::move(inotify), std::move(pause));
    const auto ids = list_ids(options_.state_root + "/containers");
    for (const std::string& id : ids.ok() ? *ids : std::vector<std::string>()) {
        stream->add_monitor(id);
    }
    return std::unique_ptr<EventStream>(std::move(stream));
}

}  // namespace moat::runtime
