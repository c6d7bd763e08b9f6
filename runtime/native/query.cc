// What the kernel knows of a container: its processes and figures.

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/container/impl.h"
#include "runtime/native/native_runtime.h"
#include "runtime/util/files.h"
#include "runtime/util/tree_usage.h"

namespace moat::runtime {

namespace {

/// The value of "Key:" in /proc/PID/status.
std::string status_field(const std::string& status, const std::string& key) {
    const size_t at = status.find("\n" + key + ":");
    if (at == std::string::npos) {
        return "";
    }
    const size_t begin = status.find_first_not_of(" \t", at + key.size() + 2);
    return status.substr(begin, status.find('\n', begin) - begin);
}

void count_descriptors(pid_t pid, Stats& out) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd";
    DIR* directory = ::opendir(path.c_str());
    if (directory == nullptr) {
        return;
    }
    while (const dirent* entry = ::readdir(directory)) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        out.file_descriptors++;
        char target[16];
        const ssize_t n = ::readlinkat(::dirfd(directory), entry->d_name, target, sizeof target);
        out.sockets += n >= 7 && memcmp(target, "socket:", 7) == 0;
    }
    ::closedir(directory);
}

}  // namespace

Result<Stats> NativeRuntime::stats(const std::string& id) {
    const std::string step = "statistics of " + id;
    const NativeContainer container = TRY_STEP(step, load_container(id));
    const auto* cgroup_manager = TRY_STEP(step, manager());
    Stats out;
    out.cgroup = container.cgroup;
    if (container.init.pid == 0) {
        return out;  // not started: it has no cgroup yet
    }
    static_cast<cgroups::Statistics&>(out) =
        TRY_STEP(step, cgroup_manager->statistics(container.cgroup));
    for (const pid_t pid : cgroup_manager->processes(container.cgroup)) {
        out.processes++;
        count_descriptors(pid, out);
    }
    const std::string limits = "/proc/" + std::to_string(container.init.pid) + "/limits";
    if (const auto text = read_whole_file(limits); text.ok()) {
        const size_t at = text->find("Max open files");
        if (at != std::string::npos) {
            out.open_files_limit = ::strtoull(text->c_str() + at + 14, nullptr, 10);
        }
    }
    const ScopedFd upper(
        ::open(container.upper().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (upper) {  // else its root is read-only
        const TreeUsage layer = TRY_STEP(step, tree_usage(upper.get()));
        out.writable_layer_bytes = layer.bytes;
        out.writable_layer_inodes = layer.inodes;
    }
    return out;
}

Result<std::vector<ProcessInfo>> NativeRuntime::processes(const std::string& id) {
    const std::string step = "processes of " + id;
    const NativeContainer container = TRY_STEP(step, load_container(id));
    const auto* cgroup_manager = TRY_STEP(step, manager());
    std::vector<ProcessInfo> all;
    for (const pid_t pid : cgroup_manager->processes(container.cgroup)) {
        const auto status = read_whole_file("/proc/" + std::to_string(pid) + "/status");
        if (!status.ok()) {
            continue;  // it has ended meanwhile
        }
        const std::string text = "\n" + *status;
        ProcessInfo info;
        info.host_pid = pid;
        const std::string pids = status_field(text, "NSpid");
        info.pid = static_cast<int32_t>(
            ::strtol(pids.c_str() + pids.find_last_of(" \t") + 1, nullptr, 10));
        info.ppid = static_cast<int32_t>(::strtol(status_field(text, "PPid").c_str(), nullptr, 10));
        info.uid = static_cast<uint32_t>(::strtoul(status_field(text, "Uid").c_str(), nullptr, 10));
        info.state = status_field(text, "State").substr(0, 1);
        info.command = status_field(text, "Name");
        info.rss_bytes = ::strtoull(status_field(text, "VmRSS").c_str(), nullptr, 10) * 1024;
        all.push_back(std::move(info));
    }
    return all;
}

}  // namespace moat::runtime
