#include "runtime/container/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/control/messages.h"
#include "runtime/spec/fields.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

Json hooks_to_json(const std::vector<SpecHook>& hooks) {
    Json list = Json::array();
    for (const SpecHook& hook : hooks) {
        list.push_back(Json{{"path", hook.path},
                            {"args", hook.args},
                            {"env", hook.env},
                            {"timeout", hook.timeout_s}});
    }
    return list;
}

Status hooks_from_json(const Fields& top, const char* key, std::vector<SpecHook>& out) {
    return top.objects(key, [&](const Fields& h) -> Status {
        SpecHook hook;
        TRY(h.read("path", hook.path));
        TRY(h.read("args", hook.args));
        TRY(h.read("env", hook.env));
        TRY(h.read("timeout", hook.timeout_s));
        out.push_back(std::move(hook));
        return {};
    });
}

Json process_to_json(const ProcessRef& process) {
    return {{"pid", process.pid}, {"start_time", process.start_time}};
}

Status process_from_json(const Fields& top, const char* key, ProcessRef& out) {
    return top.object(key, [&](const Fields& p) -> Status {
        TRY(p.read("pid", out.pid));
        return p.read("start_time", out.start_time);
    });
}

}  // namespace

std::string Record::to_json() const {
    Json json = {{"version", 1},
                 {"id", id},
                 {"sandbox_id", sandbox_id},
                 {"has_sandbox", has_sandbox},
                 {"has_container", has_container},
                 {"complete", complete},
                 {"frozen", frozen},
                 {"bundle", bundle},
                 {"rootfs", rootfs},
                 {"created_at_ns", created_at_ns},
                 {"sentry", process_to_json(sentry)},
                 {"gofer", process_to_json(gofer)},
                 {"pod_cgroup", pod_cgroup},
                 {"container_cgroup", container_cgroup},
                 {"cgroup_directories", cgroup_directories},
                 {"annotations", annotations},
                 {"process", control::to_json(process)},
                 {"poststart", hooks_to_json(poststart)},
                 {"poststop", hooks_to_json(poststop)}};
    if (exit) {
        json["exit"] = control::to_json(*exit);
    }
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Record> Record::from_json(const std::string& text, const std::string& file) {
    const Json json = TRY(parse_json(text, file));
    const Fields top(json, file);
    TRY(top.expect_object());
    int version = 0;
    TRY(top.read("version", version));
    if (version != 1) {
        return top.error("version", "1, as this version of moat writes it", version);
    }
    Record r;
    TRY(top.read("id", r.id));
    TRY(top.read("sandbox_id", r.sandbox_id));
    TRY(top.read("has_sandbox", r.has_sandbox));
    TRY(top.read("has_container", r.has_container));
    TRY(top.read("complete", r.complete));
    TRY(top.read("frozen", r.frozen));
    TRY(top.read("bundle", r.bundle));
    TRY(top.read("rootfs", r.rootfs));
    TRY(top.read("created_at_ns", r.created_at_ns));
    TRY(process_from_json(top, "sentry", r.sentry));
    TRY(process_from_json(top, "gofer", r.gofer));
    TRY(top.read("pod_cgroup", r.pod_cgroup));
    TRY(top.read("container_cgroup", r.container_cgroup));
    TRY(top.read("cgroup_directories", r.cgroup_directories));
    TRY(top.read("annotations", r.annotations));
    TRY(top.object("process", [&](const Fields& p) -> Status {
        auto plan = control::process_plan_from_json(p.json());
        if (!plan.ok()) {
            return p.error("", "a process plan");
        }
        r.process = std::move(plan).value();
        return {};
    }));
    TRY(hooks_from_json(top, "poststart", r.poststart));
    TRY(hooks_from_json(top, "poststop", r.poststop));
    TRY(top.object("exit", [&](const Fields& e) -> Status {
        auto status = control::exit_status_from_json(e.json());
        if (!status.ok()) {
            return e.error("", "an exit status");
        }
        r.exit = *status;
        return {};
    }));
    return r;
}

Status check_id(const std::string& id) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '+' || c == '-' || c == '.';
    };
    if (id.empty() || id.size() > 128 || id == "." || id == ".." ||
        !std::all_of(id.begin(), id.end(), allowed)) {
        return Error(EINVAL, "container id \"" + id +
                                 "\": expected 1 to 128 letters, digits or any of _ + - .");
    }
    return {};
}

Result<std::vector<std::string>> list_ids(const std::string& state_root) {
    std::vector<std::string> ids;
    DIR* dir = ::opendir(state_root.c_str());
    if (dir == nullptr) {
        if (errno == ENOENT) {
            return ids;
        }
        return Error::from_errno(errno, "read " + state_root);
    }
    while (const dirent* entry = ::readdir(dir)) {
        if (entry->d_type == DT_DIR && check_id(entry->d_name).ok()) {
            ids.push_back(entry->d_name);
        }
    }
    ::closedir(dir);
    std::sort(ids.begin(), ids.end());
    return ids;
}

Result<StateDirectory> StateDirectory::create(const std::string& state_root,
                                              const std::string& id) {
    TRY(check_id(id));
    TRY_STEP("make the state directory", make_directories(state_root, 0711));
    const std::string path = state_root + "/" + id;
    if (::mkdir(path.c_str(), 0700) != 0) {
        if (errno == EEXIST) {
            return Error(EEXIST, "container " + id + " exists already");
        }
        return Error::from_errno(errno, "make " + path);
    }
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    ScopedFd lock(::openat(fd.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock || ::flock(lock.get(), LOCK_EX) != 0) {
        return Error::from_errno(errno, "lock " + path);
    }
    return StateDirectory(path, std::move(fd), std::move(lock));
}

Result<StateDirectory> StateDirectory::open(const std::string& state_root, const std::string& id,
                                            LockMode mode) {
    TRY(check_id(id));
    const std::string path = state_root + "/" + id;
    const Error gone(ENOENT, "container " + id + " does not exist");
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) {
        return errno == ENOENT ? gone : Error::from_errno(errno, "open " + path);
    }
    ScopedFd lock;
    if (mode != LockMode::kNone) {
        lock.reset(::openat(fd.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (!lock) {
            return errno == ENOENT ? gone : Error::from_errno(errno, "open the lock of " + path);
        }
        const int how = mode == LockMode::kShared ? LOCK_SH : LOCK_EX;
        while (::flock(lock.get(), how) != 0) {
            if (errno != EINTR) {
                return Error::from_errno(errno, "lock " + path);
            }
        }
        // Whoever held the lock may have removed the container.
        struct stat st;
        if (::fstat(lock.get(), &st) != 0 || st.st_nlink == 0) {
            return gone;
        }
    }
    return StateDirectory(path, std::move(fd), std::move(lock));
}

Result<Record> StateDirectory::load() const {
    const std::string file = path_ + "/state.json";
    auto text = read_whole_file(file);
    if (!text.ok()) {
        return text.error();
    }
    return Record::from_json(*text, file);
}

Status StateDirectory::save(const Record& record) const {
    // Processes, cgroups and mounts do not outlive a loss of power, so nothing worth an fsync is
    // said here: what an unreadable state file leaves behind is this directory alone.
    TRY_STEP("write the state file",
             replace_file(fd(), "state.json", record.to_json(), Durability::kProcess));
    return {};
}

Result<ScopedFd> StateDirectory::open_log(const std::string& name) const {
    ScopedFd log(
        ::openat(fd(), name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!log) {
        return Error::from_errno(errno, "open " + path_ + "/" + name);
    }
    return log;
}

std::string StateDirectory::log_tail(const std::string& name) const {
    ScopedFd log(::openat(fd(), name.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat st;
    if (!log || ::fstat(log.get(), &st) != 0 || st.st_size == 0) {
        return "";
    }
    char text[2048];
    const off_t from = std::max<off_t>(0, st.st_size - static_cast<off_t>(sizeof text));
    const ssize_t n = ::pread(log.get(), text, sizeof text, from);
    std::string tail(text, n > 0 ? n : 0);
    if (from > 0 && tail.find('\n') != std::string::npos) {
        tail.erase(0, tail.find('\n') + 1);
    }
    while (!tail.empty() && tail.back() == '\n') {
        tail.pop_back();
    }
    return tail;
}

std::optional<control::ExitStatus> StateDirectory::recorded_exit() const {
    const ScopedFd file(::openat(fd(), kExitStatusFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    char text[1024];  // the sentry may have written anything
    const ssize_t n = file ? ::pread(file.get(), text, sizeof text, 0) : -1;
    if (n <= 0) {
        return std::nullopt;
    }
    const auto json = parse_json(std::string(text, n), kExitStatusFile);
    if (!json.ok()) {
        return std::nullopt;
    }
    const auto status = control::exit_status_from_json(*json);
    return status.ok() ? std::optional(*status) : std::nullopt;
}

Status StateDirectory::remove() const { return remove_tree(path_); }

}  // namespace moat::runtime
