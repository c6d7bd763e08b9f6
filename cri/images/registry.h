#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cri/images/hosts.h"
#include "cri/images/manifest.h"
#include "cri/images/reference.h"

namespace moat::cri {

/// What PullImage brings to prove who asks.
struct RegistryAuth {
    std::string username;
    std::string password;
    std::string registry_token;  ///< sent as it is, as a bearer token
};

struct FetchedManifest {
    std::string text;
    std::string media_type;
    std::string digest;  ///< of the text
};

/// Pulls from one server (OCI distribution specification). Registries are hostile: sizes are
/// bounded while they stream, digests are checked, and credentials go to no host that a redirect
/// names.
class RegistryClient {
  public:
    /// `cancelled` is asked while data streams; ECANCELED when it says yes.
    RegistryClient(RegistryEndpoint endpoint, Reference reference, RegistryAuth auth,
                   std::function<bool()> cancelled);
    ~RegistryClient();

    /// `target` is a tag or a digest, which the text must then have. ENOENT: the server has none;
    /// EACCES: it does not let us.
    Result<FetchedManifest> manifest(const std::string& target);
    /// A small blob into memory. EBADMSG: another length or digest.
    Result<std::string> blob(const Descriptor& descriptor, size_t max_bytes);
    /// A blob into a new file. EBADMSG as above; the file is then incomplete and the caller's to
    /// remove.
    Status download(const Descriptor& descriptor, const std::string& path);
    const std::string& url() const { return endpoint_.url; }

  private:
    struct Answer;
    using Sink = std::function<Status(const char* data, size_t size)>;
    Result<Answer> get(const std::string& path, const std::string& accept, const Sink& sink);
    Result<Answer> get_once(const std::string& url, const std::string& accept,
                            const std::string& authorization, const Sink& sink);
    Result<std::string> authorize(const std::string& challenge);
    std::string basic() const;
    Status stream(const Descriptor& descriptor, const Sink& sink);

    const RegistryEndpoint endpoint_;
    const Reference reference_;
    const RegistryAuth auth_;
    const std::function<bool()> cancelled_;
    std::string authorization_;  ///< what the server accepted last
};

/// Splits `Bearer realm="...",service="...",scope="..."`; parameters in any order, quoted or not.
struct AuthChallenge {
    std::string scheme;  ///< in lower case
    std::string realm;
    std::string service;
    std::string scope;
};
AuthChallenge parse_challenge(const std::string& header);

}  // namespace moat::cri
