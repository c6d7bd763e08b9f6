#include "cri/containers/capabilities.h"

#include <algorithm>
#include <cctype>

namespace moat::cri {

std::vector<std::string> default_capabilities() {
    return {"CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
            "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
            "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
            "CAP_KILL",    "CAP_AUDIT_WRITE"};
}

std::vector<std::string> all_capabilities() {
    return {"CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_DAC_READ_SEARCH",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_LINUX_IMMUTABLE",
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_BROADCAST",
            "CAP_NET_ADMIN",
            "CAP_NET_RAW",
            "CAP_IPC_LOCK",
            "CAP_IPC_OWNER",
            "CAP_SYS_MODULE",
            "CAP_SYS_RAWIO",
            "CAP_SYS_CHROOT",
            "CAP_SYS_PTRACE",
            "CAP_SYS_PACCT",
            "CAP_SYS_ADMIN",
            "CAP_SYS_BOOT",
            "CAP_SYS_NICE",
            "CAP_SYS_RESOURCE",
            "CAP_SYS_TIME",
            "CAP_SYS_TTY_CONFIG",
            "CAP_MKNOD",
            "CAP_LEASE",
            "CAP_AUDIT_WRITE",
            "CAP_AUDIT_CONTROL",
            "CAP_SETFCAP",
            "CAP_MAC_OVERRIDE",
            "CAP_MAC_ADMIN",
            "CAP_SYSLOG",
            "CAP_WAKE_ALARM",
            "CAP_BLOCK_SUSPEND",
            "CAP_AUDIT_READ",
            "CAP_PERFMON",
            "CAP_BPF",
            "CAP_CHECKPOINT_RESTORE"};
}

Result<std::string> capability_name(const std::string& name) {
    std::string upper;
    for (const char c : name) {
        upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    if (upper.rfind("CAP_", 0) != 0) {
        upper = "CAP_" + upper;
    }
    const auto all = all_capabilities();
    if (std::find(all.begin(), all.end(), upper) == all.end()) {
        return invalid_argument("capability \"" + name + "\": unknown");
    }
    return upper;
}

Result<std::vector<std::string>> adjust_capabilities(std::vector<std::string> base,
                                                     const std::vector<std::string>& add,
                                                     const std::vector<std::string>& drop) {
    const auto is_all = [](const std::string& name) { return name == "ALL" || name == "all"; };
    if (std::any_of(add.begin(), add.end(), is_all)) {
        base = all_capabilities();
    }
    if (std::any_of(drop.begin(), drop.end(), is_all)) {
        base.clear();
    }
    for (const std::string& name : add) {
        if (!is_all(name)) {
            std::string capability = TRY(capability_name(name));
            if (std::find(base.begin(), base.end(), capability) == base.end()) {
                base.push_back(std::move(capability));
            }
        }
    }
    for (const std::string& name : drop) {
        if (!is_all(name)) {
            std::erase(base, TRY(capability_name(name)));
        }
    }
    return base;
}

}  // namespace moat::cri
