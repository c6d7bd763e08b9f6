#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "cri/images/http.h"

namespace moat::cri {

/// What PullImage brings to prove who asks (AuthConfig of the CRI). It is sent to the servers that
/// the hosts files name for the registry and to the token servers that those name, and to nobody
/// else.
struct RegistryAuth {
    std::string username;
    std::string password;
    std::string registry_token;  ///< sent as it is, as a bearer token
    std::string
        identity_token;  ///< exchanged for tokens at the token server (OAuth2 refresh token)
    std::string server_address;  ///< not empty: for this host only
};

/// Splits `Bearer realm="...",service="...",scope="..."`; parameters in any order, quoted or not.
struct AuthChallenge {
    std::string scheme;  ///< in lower case
    std::string realm;
    std::string service;
    std::string scope;
};
AuthChallenge parse_challenge(const std::string& header);

/// Proves to one registry, for one repository, who asks: basic or bearer, as its challenges say
/// (RFC 7235, distribution's token specification). Shared by the threads of a pull.
class Authorizer {
  public:
    /// `url`: the registry's; `path`: the repository.
    Authorizer(HttpClient& http, std::string url, std::string path, RegistryAuth auth);

    /// The Authorization header's value; empty: none so far.
    std::string header();
    /// After a 401 to a request with `used` in its header: fetches what the challenges ask for,
    /// unless another thread has done so meanwhile. EACCES: it asks for what we do not have, or
    /// refuses us.
    Status refresh(const std::vector<std::string>& challenges, const std::string& used);

  private:
    Result<std::string> token(const AuthChallenge& challenge);
    std::string basic() const;

    HttpClient& http_;
    const std::string url_;
    const std::string path_;
    RegistryAuth auth_;
    std::mutex mu_;
    std::string header_;  ///< guarded by mu_
};

}  // namespace moat::cri
