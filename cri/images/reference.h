#pragma once

#include <string>

#include "cri/base/error.h"

namespace moat::cri {

/// A name of an image as people write it, filled up as Docker does: "busybox" is
/// docker.io/library/busybox:latest.
struct Reference {
    std::string host;    ///< "docker.io", "127.0.0.1:5000"
    std::string path;    ///< "library/busybox"
    std::string tag;     ///< empty when a digest is given without one
    std::string digest;  ///< "sha256:...", or empty

    std::string repository() const { return host + "/" + path; }
    std::string tagged() const { return repository() + ":" + tag; }
    std::string by_digest(const std::string& other) const { return repository() + "@" + other; }
    /// What a registry is asked for.
    const std::string& target() const { return digest.empty() ? tag : digest; }
};

/// EINVAL names the part that is wrong (grammar of the OCI distribution specification).
Result<Reference> parse_reference(const std::string& text);

}  // namespace moat::cri
