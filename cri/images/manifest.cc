#include "cri/images/manifest.h"

#include <sys/utsname.h>

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "cri/base/sha256.h"

namespace moat::cri {

using nlohmann::json;

namespace {

constexpr size_t kMaxLayers = 512;

/// Throws json::exception or invalid_argument with the field's name.
Descriptor descriptor(const json& value, const std::string& field) {
    Descriptor result;
    result.media_type = value.value("mediaType", "");
    result.digest = value.at("digest").get<std::string>();
    result.size = value.at("size").get<int64_t>();
    if (!is_digest(result.digest)) {
        throw std::invalid_argument(field + ".digest: not a sha256 digest: \"" + result.digest +
                                    "\"");
    }
    if (result.size < 0) {
        throw std::invalid_argument(field + ".size: negative");
    }
    return result;
}

Index index_of(const json& root) {
    Index index;
    for (const json& value : root.at("manifests")) {
        Index::Entry entry;
        entry.descriptor = descriptor(value, "manifests");
        if (const auto it = value.find("platform"); it != value.end() && it->is_object()) {
            entry.os = it->value("os", "");
            entry.architecture = it->value("architecture", "");
            entry.variant = it->value("variant", "");
        }
        if (const auto it = value.find("annotations"); it != value.end() && it->is_object()) {
            entry.reference_name = it->value("org.opencontainers.image.ref.name", "");
            entry.full_name = it->value("io.containerd.image.name", "");
        }
        index.entries.push_back(std::move(entry));
    }
    return index;
}

class Unsupported : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// An empty type is let through: old builders wrote none, and the bytes tell.
void check_config_type(const std::string& type) {
    static const std::set<std::string> kKnown = {"", "application/vnd.oci.image.config.v1+json",
                                                 "application/vnd.docker.container.image.v1+json",
                                                 "application/octet-stream"};
    if (!kKnown.contains(type)) {
        throw Unsupported("config: media type " + type.substr(0, 200) + ": not an image's");
    }
}

void check_layer_type(const std::string& type) {
    static const std::set<std::string> kKnown = {
        "",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd"};
    if (!kKnown.contains(type)) {
        throw Unsupported("layers: media type " + type.substr(0, 200) + ": not supported");
    }
}

Manifest manifest_of(const json& root) {
    Manifest manifest;
    manifest.config = descriptor(root.at("config"), "config");
    check_config_type(manifest.config.media_type);
    for (const json& value : root.at("layers")) {
        manifest.layers.push_back(descriptor(value, "layers"));
        check_layer_type(manifest.layers.back().media_type);
    }
    if (manifest.layers.size() > kMaxLayers) {
        throw std::invalid_argument("layers: more than " + std::to_string(kMaxLayers));
    }
    return manifest;
}

/// The level that an entry asks for; 0: unknown, so not for us.
int level_of(const std::string& architecture, const std::string& variant) {
    if (variant.size() == 2 && variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9') {
        return variant[1] - '0';
    }
    if (!variant.empty()) {
        return 0;
    }
    return architecture == "arm64" ? 8 : 1;
}

}  // namespace

Result<std::variant<Manifest, Index>> parse_manifest(const std::string& text,
                                                     const std::string& media_type) {
    try {
        const json root = json::parse(text);
        if (root.value("schemaVersion", 2) == 1) {
            return not_supported("manifest: Docker schema 1, which has been out of use since 2017");
        }
        const std::string type = root.value("mediaType", media_type);
        const bool list = type.find("index") != std::string::npos ||
                          type.find("list") != std::string::npos ||
                          (root.contains("manifests") && !root.contains("layers"));
        // The two kinds share their digest's namespace: a text that could be read as both is an
        // attack (CVE-2021-41190).
        if (root.contains("manifests") && (root.contains("layers") || root.contains("config"))) {
            return invalid_argument("manifest: both a manifest and an index");
        }
        if (list) {
            return std::variant<Manifest, Index>(index_of(root));
        }
        return std::variant<Manifest, Index>(manifest_of(root));
    } catch (const Unsupported& e) {
        return not_supported(std::string("manifest: ") + e.what());
    } catch (const std::exception& e) {
        return invalid_argument(std::string("manifest: ") + e.what());
    }
}

std::string host_architecture() {
    utsname names{};
    uname(&names);
    const std::string machine = names.machine;
    return machine == "x86_64" ? "amd64" : machine == "aarch64" ? "arm64" : machine;
}

int host_cpu_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    // x86-64 psABI, microarchitecture levels: of each the features whose names gcc and clang 14
    // both know. No processor has these without the level's others.
    const bool v2 = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("sse4.2");
    const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("fma");
    const bool v4 = v3 && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return v4 ? 4 : v3 ? 3 : v2 ? 2 : 1;
#else
    return 8;
#endif
}

Result<Descriptor> choose_platform(const Index& index) {
    return choose_platform(index, host_cpu_level());
}

Result<Descriptor> choose_platform(const Index& index, int cpu_level) {
    const std::string architecture = host_architecture();
    std::string seen;
    const Index::Entry* best = nullptr;
    int best_level = -1;
    for (const Index::Entry& entry : index.entries) {
        if (seen.size() < 1000) {
            seen += (seen.empty() ? "" : ", ") + entry.os.substr(0, 50) + "/" +
                    entry.architecture.substr(0, 50) + (entry.variant.empty() ? "" : "/") +
                    entry.variant.substr(0, 50);
        }
        int level = -1;
        if (entry.os.empty() && entry.architecture.empty()) {
            level = 0;
        } else if (entry.os == "linux" && entry.architecture == architecture) {
            const int asked = level_of(architecture, entry.variant);
            level = asked >= 1 && asked <= cpu_level ? asked : -1;
        }
        if (level > best_level) {
            best = &entry;
            best_level = level;
        }
    }
    if (best == nullptr) {
        return invalid_argument("manifest list: nothing for linux/" + architecture + " (level " +
                                std::to_string(cpu_level) + "); it has " +
                                (seen.empty() ? "no entry" : seen));
    }
    return best->descriptor;
}

}  // namespace moat::cri
