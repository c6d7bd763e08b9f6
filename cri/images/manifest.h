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
/// tell. EINVAL names the field; EOPNOTSUPP for Docker's schema 1, for layers that are not a tar,
/// plain or packed with gzip or zstd, and for what is not an image at all.
Result<std::variant<Manifest, Index>> parse_manifest(const std::string& text,
                                                     const std::string& media_type);

/// The entry for this machine, of several the one for the newest CPU that it has: EINVAL says which
/// platforms there are. An entry that names no platform stands in when no other fits.
Result<Descriptor> choose_platform(const Index& index);
/// The same for a CPU of this level: of amd64 the x86-64 micro-architecture level, 1 to 4; of arm64
/// the architecture's version, 8 or 9.
Result<Descriptor> choose_platform(const Index& index, int cpu_level);
/// Of the CPU we run on.
int host_cpu_level();
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
