#include "cri/images/image_config.h"

#include <signal.h>
#include <string.h>

#include <nlohmann/json.hpp>

#include "cri/base/sha256.h"

namespace moat::cri {

using nlohmann::json;

namespace {

/// Go writes an empty list as null.
std::vector<std::string> strings(const json& object, const char* key) {
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) {
        return {};
    }
    return it->get<std::vector<std::string>>();
}

std::string text_of(const json& object, const char* key) {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? std::string() : it->get<std::string>();
}

}  // namespace

Result<ImageConfig> parse_image_config(const std::string& text) {
    try {
        const json root = json::parse(text);
        ImageConfig config;
        config.architecture = text_of(root, "architecture");
        config.os = text_of(root, "os");
        config.diff_ids = root.at("rootfs").at("diff_ids").get<std::vector<std::string>>();
        for (const std::string& diff_id : config.diff_ids) {
            if (!is_digest(diff_id)) {
                return invalid_argument(
                    "image configuration: rootfs.diff_ids: not a sha256 digest: " + diff_id);
            }
        }
        if (const auto it = root.find("config"); it != root.end() && it->is_object()) {
            config.env = strings(*it, "Env");
            config.entrypoint = strings(*it, "Entrypoint");
            config.cmd = strings(*it, "Cmd");
            config.working_dir = text_of(*it, "WorkingDir");
            config.user = text_of(*it, "User");
            config.stop_signal = text_of(*it, "StopSignal");
        }
        return config;
    } catch (const json::exception& e) {
        return invalid_argument(std::string("image configuration: ") + e.what());
    }
}

int signal_number(const std::string& name) {
    if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos) {
        const int number = name.size() < 4 ? std::stoi(name) : 0;
        return number >= 1 && number <= 64 ? number : 0;
    }
    const std::string bare = name.rfind("SIG", 0) == 0 ? name.substr(3) : name;
    for (int number = 1; number < 32; ++number) {
        const char* known = sigabbrev_np(number);
        if (known != nullptr && bare == known) {
            return number;
        }
    }
    // signal(7): the guest's real-time signals are 34 (glibc's SIGRTMIN) to 64.
    const auto offset = [&](size_t prefix) {
        const std::string digits = bare.substr(prefix);
        return digits.empty() || digits.size() > 2 ||
                       digits.find_first_not_of("0123456789") != std::string::npos
                   ? -1
                   : std::stoi(digits);
    };
    if (bare == "RTMIN") {
        return 34;
    }
    if (bare == "RTMAX") {
        return 64;
    }
    if (bare.rfind("RTMIN+", 0) == 0) {
        const int n = offset(6);
        return n >= 0 && n <= 30 ? 34 + n : 0;
    }
    if (bare.rfind("RTMAX-", 0) == 0) {
        const int n = offset(6);
        return n >= 0 && n <= 30 ? 64 - n : 0;
    }
    static constexpr std::pair<const char*, int> kAliases[] = {
        {"IOT", SIGABRT}, {"CLD", SIGCHLD}, {"POLL", SIGIO}, {"IO", SIGIO}, {"STKFLT", SIGSTKFLT}};
    for (const auto& [alias, number] : kAliases) {
        if (bare == alias) {
            return number;
        }
    }
    return 0;
}

}  // namespace moat::cri
