#include "cri/images/registry.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "cri/base/sha256.h"

namespace moat::cri {

namespace {

/// In a row without a byte in between; a server that is not the last one to ask gets fewer.
constexpr int kTries = 5;
constexpr int kTriesOfMirror = 2;
/// All together: a server that breaks off after every few bytes is not waited for forever.
constexpr int kMostTries = 100;
constexpr int64_t kLongestBackoffMs = 8000;
/// For what is small: manifests, configurations.
constexpr int64_t kSmallSeconds = 300;

/// What a registry says in its error object, or the beginning of whatever it sent. A host that a
/// redirect named is not quoted: it need not be one that our client may see.
std::string error_text(const HttpAnswer& answer) {
    const std::string& body = answer.error_body;
    if (answer.elsewhere) {
        return "";
    }
    const auto json = nlohmann::json::parse(body, nullptr, false);
    std::string text;
    if (json.is_object() && json.contains("errors") && json["errors"].is_array() &&
        !json["errors"].empty() && json["errors"][0].is_object()) {
        for (const char* key : {"code", "message"}) {
            if (const auto& error = json["errors"][0];
                error.contains(key) && error[key].is_string()) {
                text += " " + error[key].get<std::string>().substr(0, 300);
            }
        }
    } else {
        text = " " + body.substr(0, 200);
    }
    for (char& c : text) {
        c = static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
    return text;
}

bool may_pass(int status) {
    return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

/// The first byte's place of "bytes 5-9/10"; -1 for anything else.
int64_t range_start(const std::string& range) {
    if (range.rfind("bytes ", 0) != 0) {
        return -1;
    }
    const std::string digits = range.substr(6, range.find('-') - 6);
    if (digits.empty() || digits.size() > 18 ||
        digits.find_first_not_of("0123456789") != std::string::npos) {
        return -1;
    }
    return std::stoll(digits);
}

}  // namespace

RegistryClient::RegistryClient(RegistryEndpoint endpoint, Reference reference,
                               const RegistryAuth& auth, PullContext& context)
    : endpoint_(std::move(endpoint)),
      reference_(std::move(reference)),
      context_(context),
      http_(endpoint_.tls, context.limits.stall_seconds,
            [&context] {
                context.progress.tell();
                return context.cancelled && context.cancelled();
            }),
      authorizer_(http_, endpoint_.url, reference_.path, auth) {}

RegistryClient::~RegistryClient() = default;

Result<HttpAnswer> RegistryClient::get(const std::string& path, const std::string& accept,
                                       int64_t offset, const HttpSink& sink, Failure& failure) {
    HttpRequest request;
    request.url = endpoint_.root + "/" + reference_.path + path;
    if (url_origin(endpoint_.url) != url_origin(default_registry_url(reference_.host))) {
        // containerd's word to a mirror of several registries for which of them is meant.
        request.url += "?ns=" + HttpClient::encode(reference_.host);
    }
    if (!accept.empty()) {
        request.headers.emplace_back("Accept", accept);
        request.total_seconds = kSmallSeconds;
    }
    if (offset > 0) {
        request.headers.emplace_back("Range", "bytes=" + std::to_string(offset) + "-");
    }
    request.client_certificate = true;
    for (bool asked = false;;) {
        const std::string used = authorizer_.header();
        request.secrets = endpoint_.headers;
        if (!used.empty()) {
            request.secrets.emplace_back("Authorization", used);
        }
        auto answer = http_.send_following(request, sink);
        if (!answer.ok()) {
            const int code = answer.error().code();
            failure.again =
                code == ECONNRESET || code == ETIMEDOUT || (code == ECONNREFUSED && reached_);
            return answer.error();
        }
        reached_ = true;
        if (answer->status == 401 && !answer->elsewhere && !asked) {
            asked = true;
            const Status refreshed = authorizer_.refresh(answer->challenges, used);
            if (!refreshed.ok()) {
                const int code = refreshed.error().code();
                failure.again = code == EAGAIN || code == ECONNRESET || code == ETIMEDOUT;
                return refreshed.error().within(endpoint_.url);
            }
            continue;
        }
        if (answer->status == 200 || answer->status == 206) {
            return answer;
        }
        failure.again = may_pass(answer->status);
        failure.pause_seconds = answer->retry_after;
        const int code = answer->status == 404                            ? ENOENT
                         : answer->status == 416                          ? ERANGE
                         : answer->status == 401 || answer->status == 403 ? EACCES
                                                                          : EIO;
        return Error(code, "GET " + url_without_query(request.url) +
                               (answer->elsewhere ? ": redirected: status " : ": status ") +
                               std::to_string(answer->status) + error_text(*answer));
    }
}

Status RegistryClient::pause(int64_t milliseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (std::chrono::steady_clock::now() < end) {
        if (context_.cancelled && context_.cancelled()) {
            return Error(ECANCELED, "the client has gone");
        }
        context_.progress.tell();
        std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(
            std::chrono::milliseconds(100), end - std::chrono::steady_clock::now()));
    }
    return {};
}

template <typename T>
Result<T> RegistryClient::with_retries(const std::function<Result<T>(Failure&)>& attempt) {
    const int limit = endpoint_.last ? kTries : kTriesOfMirror;
    int in_a_row = 0;
    for (int tries = 1;; ++tries) {
        Failure failure;
        const uint64_t before = received_;
        Result<T> result = attempt(failure);
        if (result.ok() || !failure.again) {
            return result;
        }
        in_a_row = received_ == before ? in_a_row + 1 : 1;
        if (in_a_row >= limit || tries == kMostTries) {
            return Error(result.error().code(),
                         result.error().message() + " (after " + std::to_string(tries) + " tries)");
        }
        if (failure.pause_seconds > context_.limits.longest_pause_s) {
            return Error(result.error().code(), result.error().message() + " (and asks to wait " +
                                                    std::to_string(failure.pause_seconds) + " s)");
        }
        const int64_t backoff =
            std::min(kLongestBackoffMs, context_.limits.retry_base_ms << (in_a_row - 1));
        const int64_t wait = std::max(backoff, failure.pause_seconds * 1000);
        spdlog::warn("pull {}: {}; again in {} ms", context_.name, result.error().message(), wait);
        ++context_.metrics.retries;
        TRY(pause(wait));
    }
}

Result<FetchedManifest> RegistryClient::manifest(const std::string& target) {
    return with_retries<FetchedManifest>([&](Failure& failure) -> Result<FetchedManifest> {
        FetchedManifest manifest;
        HttpSink sink;
        sink.data = [&](std::string_view data) -> Status {
            if (manifest.text.size() + data.size() > kMaxManifest) {
                return Error(EFBIG,
                             "a manifest of more than " + std::to_string(kMaxManifest) + " bytes");
            }
            manifest.text += data;
            return {};
        };
        const HttpAnswer answer =
            TRY(get("/manifests/" + target, kAcceptedManifests, 0, sink, failure));
        manifest.media_type = answer.media_type;
        manifest.digest = Sha256::of(manifest.text);
        if (is_digest(target) && manifest.digest != target) {
            return Error(EBADMSG,
                         "manifest " + target + ": what came has digest " + manifest.digest);
        }
        return manifest;
    });
}

Result<std::string> RegistryClient::blob(const Descriptor& descriptor, size_t max_bytes) {
    const std::string step = "blob " + descriptor.digest;
    if (descriptor.size > static_cast<int64_t>(max_bytes)) {
        return Error(EFBIG, step + ": more than " + std::to_string(max_bytes) + " bytes");
    }
    return with_retries<std::string>([&](Failure& failure) -> Result<std::string> {
        std::string text;
        HttpSink sink;
        sink.data = [&](std::string_view data) -> Status {
            text += data;
            return static_cast<int64_t>(text.size()) > descriptor.size
                       ? Status(Error(EBADMSG, "longer than the " +
                                                   std::to_string(descriptor.size) +
                                                   " bytes of its descriptor"))
                       : Status();
        };
        TRY_STEP(step, get("/blobs/" + descriptor.digest, "*/*", 0, sink, failure));
        if (Sha256::of(text) != descriptor.digest) {
            return Error(EBADMSG, step + ": what came has digest " + Sha256::of(text));
        }
        return text;
    });
}

Status RegistryClient::download(const Descriptor& descriptor, PartialBlob& file) {
    const auto attempt = [&](Failure& failure) -> Result<bool> {
        HttpSink sink;
        sink.headers = [&](const HttpAnswer& answer) -> Status {
            if (answer.status == 200 && file.size() > 0) {
                TRY(file.restart());  // it does not know ranges
            }
            if (answer.status == 206 && range_start(answer.content_range) != file.size()) {
                return Error(EBADMSG, "asked for the bytes from " + std::to_string(file.size()) +
                                          " on, got \"" + answer.content_range.substr(0, 100) +
                                          "\"");
            }
            const int64_t rest = descriptor.size - file.size();
            if (answer.content_length >= 0 && answer.content_length != rest) {
                return Error(EBADMSG, std::to_string(answer.content_length) +
                                          " bytes instead of the " + std::to_string(rest) +
                                          " of its descriptor");
            }
            return {};
        };
        sink.data = [&](std::string_view data) -> Status {
            if (file.size() + static_cast<int64_t>(data.size()) > descriptor.size) {
                return Error(EBADMSG, "longer than the " + std::to_string(descriptor.size) +
                                          " bytes of its descriptor");
            }
            TRY(file.append(data));
            received_ += data.size();
            context_.metrics.bytes_downloaded += data.size();
            context_.progress.downloaded(data.size());
            return {};
        };
        const auto answer = get("/blobs/" + descriptor.digest, "", file.size(), sink, failure);
        if (!answer.ok()) {
            if (answer.error().code() == ERANGE && file.size() > 0) {
                TRY(file.restart());
                failure.again = true;
            }
            return answer.error();
        }
        return true;
    };
    const std::string step = "blob " + descriptor.digest;
    if (file.size() < descriptor.size || descriptor.size == 0) {
        TRY_STEP(step, with_retries<bool>(attempt));
    }
    if (file.size() != descriptor.size) {
        return Error(EBADMSG, step + ": " + std::to_string(file.size()) + " bytes instead of the " +
                                  std::to_string(descriptor.size) + " of its descriptor");
    }
    return {};
}

}  // namespace moat::cri
