#include "cri/pods/sysctls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "cri/cni/netns.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

constexpr const char* kOfIpc[] = {"kernel.msgmax", "kernel.msgmnb",         "kernel.msgmni",
                                  "kernel.sem",    "kernel.shmall",         "kernel.shmmax",
                                  "kernel.shmmni", "kernel.shm_rmid_forced"};

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

/// Letters, digits and what interface names have; no empty part, so no "..".
bool is_name(const std::string& name) {
    const bool known = std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
    });
    return known && name.find("..") == std::string::npos && name.front() != '.' &&
           name.back() != '.';
}

}  // namespace

Status check_sysctls(const Sysctls& sysctls, OwnNetwork network) {
    for (const auto& [name, value] : sysctls) {
        const std::string field = "config.linux.sysctls: \"" + name + "\"";
        if (name.empty() || !is_name(name)) {
            return invalid_argument(field + ": not the dotted name of a sysctl");
        }
        if (value.find('\n') != std::string::npos || value.size() > 4096) {
            return invalid_argument(field + ": its value is not one line");
        }
        if (starts_with(name, "net.")) {
            if (network == OwnNetwork::kNo) {
                return invalid_argument(field + ": the pod is in the node's network");
            }
            continue;
        }
        const bool of_ipc =
            std::find(std::begin(kOfIpc), std::end(kOfIpc), name) != std::end(kOfIpc);
        if (!of_ipc && !starts_with(name, "fs.mqueue.")) {
            return invalid_argument(field + ": not one that a pod has for itself");
        }
    }
    return {};
}

Status write_network_sysctls(const Sysctls& sysctls, const std::string& path) {
    return in_network_namespace(path, [&]() -> Status {
        for (const auto& [name, value] : sysctls) {
            if (!starts_with(name, "net.") || name == "net.ipv4.ip_unprivileged_port_start" ||
                name == "net.ipv4.ping_group_range") {
                continue;
            }
            std::string file = "/proc/sys/" + name;
            std::replace(file.begin() + sizeof("/proc/sys/") - 1, file.end(), '.', '/');
            const std::string field = "config.linux.sysctls: \"" + name + "\"";
            const ScopedFd fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
            if (!fd) {
                return invalid_argument(field + ": " + strerror(errno));
            }
            // In one piece: a second write would begin anew.
            if (write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
                return invalid_argument(field + ": \"" + value + "\": " + strerror(errno));
            }
        }
        return {};
    });
}

}  // namespace moat::cri
