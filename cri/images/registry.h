#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "cri/images/auth.h"
#include "cri/images/hosts.h"
#include "cri/images/http.h"
#include "cri/images/manifest.h"
#include "cri/images/partial_blob.h"
#include "cri/images/pull_limits.h"
#include "cri/images/pull_metrics.h"
#include "cri/images/reference.h"

namespace moat::cri {

struct FetchedManifest {
    std::string text;
    std::string media_type;
    std::string digest;  ///< of the text
};

/// What belongs to a pull as a whole, whichever server it asks. Outlives its clients.
struct PullContext {
    std::string name;  ///< for the log
    PullLimits limits;
    std::function<bool()> cancelled;  ///< asked while data streams and at least once a second
    PullMetrics& metrics;
    PullProgress progress;
};

/// Pulls from one server (OCI distribution specification), for any number of threads. Registries
/// are hostile: sizes are bounded while they stream, digests are checked, and credentials go to no
/// host that a redirect names. What may be better the next time (429, 5xx, a broken connection) is
/// tried again after a pause that grows, or that the server asks for.
///
/// Errors: ENOENT: the server has none. EACCES: it does not let us. EBADMSG: wrong bytes.
/// ECANCELED. ENOSPC. Others: the server, or the way to it, does not work.
class RegistryClient {
  public:
    RegistryClient(RegistryEndpoint endpoint, Reference reference, const RegistryAuth& auth,
                   PullContext& context);
    ~RegistryClient();

    /// `target` is a tag or a digest, which the text must then have.
    Result<FetchedManifest> manifest(const std::string& target);
    /// A small blob into memory.
    Result<std::string> blob(const Descriptor& descriptor, size_t max_bytes);
    /// The rest of a blob into a file. Its digest is not checked here.
    Status download(const Descriptor& descriptor, PartialBlob& file);

    const RegistryEndpoint& endpoint() const { return endpoint_; }
    /// Cleared by who finds that asking again is of no use.
    std::atomic<bool> usable = true;

  private:
    /// What is to be thought of a failed request.
    struct Failure {
        bool again = false;  ///< it may go better another time
        int64_t pause_seconds = 0;
    };
    Result<HttpAnswer> get(const std::string& path, const std::string& accept, int64_t offset,
                           const HttpSink& sink, Failure& failure);
    template <typename T>
    Result<T> with_retries(const std::function<Result<T>(Failure&)>& attempt);
    Status pause(int64_t milliseconds);

    const RegistryEndpoint endpoint_;
    const Reference reference_;
    PullContext& context_;
    HttpClient http_;
    Authorizer authorizer_;
    std::atomic<bool> reached_ = false;   ///< it has answered before
    std::atomic<uint64_t> received_ = 0;  ///< bytes of blobs
};

}  // namespace moat::cri
