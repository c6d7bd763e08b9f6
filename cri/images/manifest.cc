#include "cri/images/manifest.h"

#include <sys/utsname.h>

#include <nlohmann/json.hpp>

#include "cri/base/sha256.h"

namespace moat::cri {

using nlohmann::json;

namespace {

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

Manifest manifest_of(const json& root) {
    Manifest manifest;
    manifest.config = descriptor(root.at("config"), "config");
    for (const json& value : root.at("layers")) {
        manifest.layers.push_back(descriptor(value, "layers"));
        const std::string& type = manifest.layers.back().media_type;
        if (type.find("foreign") != std::string::npos ||
            type.find("encrypted") != std::string::npos) {
            throw std::invalid_argument("layers: media type " + type + ": not supported");
        }
    }
    return manifest;
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

Result<Descriptor> choose_platform(const Index& index) {
    const std::string architecture = host_architecture();
    std::string seen;
    const Index::Entry* best = nullptr;
    for (const Index::Entry& entry : index.entries) {
        seen += (seen.empty() ? "" : ", ") + entry.os + "/" + entry.architecture;
        if (!entry.variant.empty()) {
            seen += "/" + entry.variant;
        }
        const bool unsaid = entry.os.empty() && entry.architecture.empty();
        const bool fits = entry.os == "linux" && entry.architecture == architecture;
        // amd64/v2 and up ask for instructions that this machine may lack; a plain entry is
        // preferred.
        const bool plain = entry.variant.empty() || entry.variant == "v1" || entry.variant == "v8";
        if ((fits && plain) || ((unsaid || fits) && best == nullptr)) {
            best = &entry;
            if (fits && plain) {
                break;
            }
        }
    }
    if (best == nullptr) {
        return invalid_argument("manifest list: nothing for linux/" + architecture + "; it has " +
                                (seen.empty() ? "no entry" : seen));
    }
    return best->descriptor;
}

}  // namespace moat::cri
