#include "cri/config/setting_table.h"

#include <algorithm>

namespace moat::cri {

namespace {

using S = Settings;

// In the order of the file: what has no section comes first.
// clang-format off
const Setting kTable[] = {
    {"socket", &S::socket, Takes::kRestart, "Where kubelet and crictl connect: unix:// and an absolute path"},
    {"root", &S::root, Takes::kRestart, "Images and all that survives a reboot"},
    {"state", &S::state, Takes::kRestart, "State that ends with the machine's uptime"},
    {"sentry", &S::sentry_path, Takes::kRestart, "moat-sentry; empty: beside moatd"},
    {"gofer", &S::gofer_path, Takes::kRestart, "moat-gofer; empty: beside moatd"},
    {"monitor", &S::monitor_path, Takes::kRestart, "moat-monitor; empty: beside moatd"},
    {"pause", &S::pause_path, Takes::kRestart, "moat-pause; empty: beside moatd"},
    {"native_runtime", &S::native_runtime, Takes::kRestart, "runc or crun, an absolute path, for the handler native; empty: the first on PATH"},
    {"default_handler", &S::default_handler, Takes::kRestart, "The handler of pods whose RuntimeClass names none"},
    {"strace", &S::strace, Takes::kRestart, "Sentries log every system call of their guests"},

    {"shutdown_grace", &S::shutdown_grace_s, Takes::kRestart, "Seconds that calls in progress get to end when moatd is told to; pods run on", "", nullptr, 0, 600},

    {"metrics.address", &S::metrics_address, Takes::kRestart, "HOST:PORT of /metrics, /healthz and /readyz, such as 127.0.0.1:9413; empty: no such server"},

    {"log.level", &S::log_level, Takes::kReload, "The least important lines that are written", "trace|debug|info|warning|error"},
    {"log.json", &S::log_json, Takes::kReload, "One JSON object a line instead of key=value text"},

    {"registry.config_dir", &S::registry_config_dir, Takes::kReload, "HOST/hosts.toml files, as containerd reads them"},
    {"registry.mirrors", &S::registry_mirrors, Takes::kReload, "HOST=URL: ask URL first for images of HOST", "", "--registry-mirror"},

    {"images.pinned", &S::pinned_images, Takes::kRestart, "Names of images that clients must not collect (CRI: pinned)", "", "--pinned-image"},
    {"images.pull_stall_seconds", &S::pull_stall_seconds, Takes::kRestart, "A registry that sends nothing for so long is given up", "", "--pull-stall-timeout", 1, 3600},
    {"images.max_layer_bytes", &S::max_layer_bytes, Takes::kRestart, "What one layer of an image may unpack to", "", "--max-layer-size", 1},
    {"images.max_partial_bytes", &S::max_partial_bytes, Takes::kRestart, "Kept of downloads that broke off, to go on with", "", "--max-partial-size", 0},

    {"cni.conf_dir", &S::cni_conf_dir, Takes::kReload, "CNI configurations; while there is none, pods get the built-in network"},
    {"cni.bin_dir", &S::cni_bin_dir, Takes::kReload, "CNI plugins"},
    {"cni.timeout", &S::cni_timeout_s, Takes::kReload, "Seconds that one call of one plugin may take; it is killed with its children then", "", nullptr, 1, 230},

    {"cdi.spec_dirs", &S::cdi_spec_dirs, Takes::kRestart, "Specifications of CDI devices, *.json and *.yaml; a later directory's replace an earlier one's", "", "--cdi-spec-dir"},

    {"network.masquerade", &S::masquerade, Takes::kRestart, "In the built-in network, what pods send beyond their range bears the node's address"},

    {"stream.address", &S::stream_address, Takes::kRestart, "Where exec, attach and port-forward are served; an IP address"},
    {"stream.port", &S::stream_port, Takes::kRestart, "Its port; 0: any that is free", "", nullptr, 0, 65535},
    {"stream.tls_cert", &S::stream_tls_cert, Takes::kRestart, "Certificate chain (PEM); with it and the key they are served by TLS"},
    {"stream.tls_key", &S::stream_tls_key, Takes::kRestart, "Private key of the certificate (PEM)"},
};
// clang-format on

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            char escape[8];
            snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned char>(c));
            result += escape;
        } else {
            result += c;
        }
    }
    return result + "\"";
}

std::string text_of(const std::string& value) { return quoted(value); }
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(const std::vector<std::string>& values) {
    std::string result;
    for (const std::string& value : values) {
        result += (result.empty() ? "" : ", ") + quoted(value);
    }
    return "[" + result + "]";
}

}  // namespace

std::span<const Setting> setting_table() { return kTable; }

std::string flag_of(const Setting& setting) {
    if (setting.flag != nullptr) {
        return setting.flag;
    }
    std::string flag = std::string("--") + setting.key;
    std::replace_if(
        flag.begin(), flag.end(), [](char c) { return c == '.' || c == '_'; }, '-');
    return flag;
}

std::string toml_value(const Settings& settings, const Setting& setting) {
    return std::visit([&](auto member) { return text_of(settings.*member); }, setting.member);
}

void copy_value(const Settings& from, Settings& to, const Setting& setting) {
    std::visit([&](auto member) { to.*member = from.*member; }, setting.member);
}

bool same_value(const Settings& a, const Settings& b, const Setting& setting) {
    return std::visit([&](auto member) { return a.*member == b.*member; }, setting.member);
}

}  // namespace moat::cri
