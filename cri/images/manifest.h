#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

struct Descriptor {
    std::string media_type;
    std::string digest;
    int64_t size = 0;
};

struct Manifest {
    Descriptor config;
    std::vector<Descriptor> layers;
};

/// A list of manifests, one a platform.
struct Index {
    struct Entry {
        Descriptor descriptor;
        std::string os;  ///< empty: not said
        std::string architecture;
        std::string variant;
        std::string reference_name;  ///< org.opencontainers.image.ref.name of an OCI layout
        std::string full_name;       ///< io.containerd.image.name
    };
    std::vector<Entry> entries;
};

/// OCI or Docker schema 2, one or a list. `media_type` may be empty: then the text itself must
/// tell. EINVAL names the field; EOPNOTSUPP for Docker's schema 1.
Result<std::variant<Manifest, Index>> parse_manifest(const std::string& text,
                                                     const std::string& media_type);

/// The entry for this machine: EINVAL says which platforms there are.
Result<Descriptor> choose_platform(const Index& index);
/// "amd64", "arm64": Go's word for the machine we run on.
std::string host_architecture();

/// All that the registry is told we can read.
inline constexpr char kAcceptedManifests[] =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

inline constexpr size_t kMaxManifest = 4 << 20;
inline constexpr size_t kMaxConfig = 8 << 20;

}  // namespace moat::cri
