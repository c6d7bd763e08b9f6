#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cri/base/error.h"
#include "cri/images/hosts.h"

namespace moat::cri {

struct HttpRequest {
    std::string url;
    std::vector<std::pair<std::string, std::string>> headers;
    /// Headers that only the origin of `url` may see.
    std::vector<std::pair<std::string, std::string>> secrets;
    std::string form;  ///< not empty: a POST with this as application/x-www-form-urlencoded
    bool client_certificate = false;  ///< show ours to that origin, if we have one
    int64_t total_seconds = 0;  ///< the whole exchange may take so long; 0: as long as data flows
};

struct HttpAnswer {
    int status = 0;
    std::string location;
    std::vector<std::string> challenges;  ///< WWW-Authenticate, one each
    std::string media_type;               ///< without parameters
    std::string content_range;
    int64_t content_length = -1;  ///< -1: not said
    int64_t retry_after = 0;      ///< seconds; 0: not said
    std::string error_body;       ///< the beginning of the body of what is not a success
    bool elsewhere = false;       ///< it came from another origin than that of the request
};

/// Where an answer of status 200 or 206 goes. An error of either ends the transfer and is returned.
struct HttpSink {
    std::function<Status(const HttpAnswer&)> headers;  ///< before the first byte; may be empty
    std::function<Status(std::string_view)> data;
};

/// HTTP and HTTPS by libcurl, for servers that may be hostile: headers and error bodies are
/// bounded, a server that sends nothing (or next to nothing) is given up, names and passwords in
/// URLs are refused. Connections are kept and used again. Any number of threads.
///
/// Errors: ECONNREFUSED: not reached. ECONNRESET: the connection broke on the way. ETIMEDOUT: it
/// stalled. EPROTO: TLS or HTTP went wrong. ECANCELED: `cancelled` said so.
class HttpClient {
  public:
    HttpClient(TlsFiles tls, int64_t stall_seconds, std::function<bool()> cancelled);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    Result<HttpAnswer> send(const HttpRequest& request, const HttpSink& sink);
    /// Goes where redirects lead, up to five of them: without secrets and certificate to another
    /// origin, never from https to http.
    Result<HttpAnswer> send_following(const HttpRequest& request, const HttpSink& sink);

    /// %XX for everything that is not unreserved (RFC 3986).
    static std::string encode(const std::string& text);

  private:
    struct Handle;
    Result<std::unique_ptr<Handle>> take();
    Status load_certificates();

    const TlsFiles tls_;
    const int64_t stall_seconds_;
    const std::function<bool()> cancelled_;
    std::mutex mu_;
    std::vector<std::unique_ptr<Handle>> idle_;  ///< guarded by mu_
    bool loaded_ = false;                        ///< guarded by mu_
    std::string ca_;                             ///< PEM of all tls_.ca; set once
};

/// The URL's scheme, host and port, in lower case; the port is there also when it is the scheme's
/// own. Two URLs of one origin may see each other's secrets. Empty for what is no URL.
std::string url_origin(const std::string& url);
/// For messages: without the query, which may hold a signature.
std::string url_without_query(const std::string& url);
/// What `location`, in the answer to a request for `base`, stands for.
Result<std::string> url_resolve(const std::string& base, const std::string& location);

}  // namespace moat::cri
