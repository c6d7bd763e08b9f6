#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// One server to ask for an image.
struct RegistryEndpoint {
    std::string url;  ///< "http://127.0.0.1:5000", with a path if the hosts file has one
    bool skip_verify = false;
    std::string ca_file;         ///< PEM; replaces the system's
    bool override_path = false;  ///< the URL has the API's "/v2" itself
};

/// Which servers stand for a registry's host: mirrors of the command line, then those of
/// `directory`/HOST/hosts.toml (or `_default`), then the host itself.
class RegistryHosts {
  public:
    RegistryHosts(std::string directory, const std::vector<std::string>& mirrors);
    /// EINVAL for a mirror that is not "host=url" with http or https; call it before anything else.
    Status check() const { return check_; }
    /// In the order in which they are tried. EINVAL names file and line.
    Result<std::vector<RegistryEndpoint>> endpoints(const std::string& host) const;

  private:
    std::string directory_;
    std::vector<std::pair<std::string, std::string>> mirrors_;
    Status check_;
};

/// The part of containerd's hosts.toml that concerns pulling: server, [host."URL"], capabilities,
/// skip_verify, ca, override_path. Keys that are not known are EINVAL: silence would send pulls
/// elsewhere.
struct HostsFile {
    std::string server;
    std::vector<RegistryEndpoint> hosts;
};
Result<HostsFile> parse_hosts_file(const std::string& text);

/// What a host is reached by when nobody says otherwise: https, but http for loopback names.
std::string default_registry_url(const std::string& host);

}  // namespace moat::cri
