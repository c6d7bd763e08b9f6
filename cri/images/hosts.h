#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// What a server is asked with besides a password.
struct TlsFiles {
    bool skip_verify = false;
    std::vector<std::string> ca;  ///< PEM files, trusted beside the system's
    /// PEM files; the key's name is empty when the certificate's file has it too.
    std::vector<std::pair<std::string, std::string>> client;
};

/// One server to ask for an image.
struct RegistryEndpoint {
    std::string url;  ///< up to, without, "/v2": "http://127.0.0.1:5000", with a path if it has one
    std::string root;  ///< of the API: `url` and "/v2", or as it is where override_path says so
    TlsFiles tls;
    /// Sent to this server with every request, and to no other.
    std::vector<std::pair<std::string, std::string>> headers;
    bool may_pull = true;     ///< capability "pull": gives contents by digest
    bool may_resolve = true;  ///< capability "resolve": is trusted to say what a tag stands for
    bool last = false;        ///< nobody else will be asked
};

/// Which servers stand for a registry's host: mirrors of the command line, then those of
/// `directory`/HOST/hosts.toml (or `_default`) in their order, then its `server` or the host
/// itself.
class RegistryHosts {
  public:
    RegistryHosts(std::string directory, const std::vector<std::string>& mirrors);
    /// EINVAL for a mirror that is not "host=url" with http or https; call it before anything else.
    Status check() const { return check_; }
    /// In the order in which they are tried. EINVAL names file and line. The file is read each
    /// time: a change needs no restart.
    Result<std::vector<RegistryEndpoint>> endpoints(const std::string& host) const;

  private:
    std::string directory_;
    std::vector<std::pair<std::string, std::string>> mirrors_;
    Status check_;
};

/// containerd's hosts.toml (its docs/hosts.md): server, [host."URL"] and for each of them, and for
/// the server at the top: capabilities, ca, client, skip_verify, header, override_path;
/// dial_timeout is taken and not used. Keys that are not known are EINVAL: silence would send pulls
/// elsewhere.
struct HostsFile {
    RegistryEndpoint server;  ///< its url is empty when the file names none
    std::vector<RegistryEndpoint> hosts;
};
/// File names in it are relative to `directory`.
Result<HostsFile> parse_hosts_file(const std::string& text, const std::string& directory);

/// What a host is reached by when nobody says otherwise: https, but http for loopback names.
std::string default_registry_url(const std::string& host);

}  // namespace moat::cri
