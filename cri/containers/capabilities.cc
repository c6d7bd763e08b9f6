#include "cri/containers/capabilities.h"

#include <algorithm>
#include <cctype>

#include "runtime/spec/spec.h"

namespace moat::cri {

std::vector<std::string> default_capabilities() {
    return {"CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
            "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
            "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
            "CAP_KILL",    "CAP_AUDIT_WRITE"};
}

Result<std::string> capability_name(const std::string& name) {
    std::string upper;
    for (const char c : name) {
        upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    if (upper.rfind("CAP_", 0) != 0) {
        upper = "CAP_" + upper;
    }
    if (runtime::capability_bit(upper) < 0) {
        return invalid_argument("capability \"" + name + "\": unknown");
    }
    return upper;
}

Result<std::vector<std::string>> adjust_capabilities(std::vector<std::string> base,
                                                     const std::vector<std::string>& add,
                                                     const std::vector<std::string>& drop) {
    const auto is_all = [](const std::string& name) { return name == "ALL" || name == "all"; };
    if (std::any_of(add.begin(), add.end(), is_all)) {
        base = runtime::capability_names();
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
