#include "cri/images/registry.h"

#include <fcntl.h>
#include <httplib.h>

#include <nlohmann/json.hpp>

#include "cri/base/base64.h"
#include "cri/base/files.h"
#include "cri/base/sha256.h"

namespace moat::cri {

namespace {

constexpr int kMaxRedirects = 5;
constexpr time_t kConnectSeconds = 30;
/// Without a byte for so long, a server is taken for dead.
constexpr time_t kStallSeconds = 60;
constexpr size_t kMaxErrorBody = 64 << 10;

/// "http://host:port/some/path?query" -> ("http://host:port", "/some/path?query").
std::pair<std::string, std::string> split_url(const std::string& url) {
    const size_t scheme = url.find("://");
    const size_t slash = url.find('/', scheme == std::string::npos ? 0 : scheme + 3);
    return slash == std::string::npos ? std::pair{url, std::string("/")}
                                      : std::pair{url.substr(0, slash), url.substr(slash)};
}

/// What a registry says in its error object, or the beginning of whatever it sent.
std::string error_text(const std::string& body) {
    const auto json = nlohmann::json::parse(body, nullptr, false);
    if (json.is_object() && json.contains("errors") && json["errors"].is_array() &&
        !json["errors"].empty() && json["errors"][0].is_object()) {
        const auto& error = json["errors"][0];
        const auto text = [&](const char* key) {
            return error.contains(key) && error[key].is_string() ? error[key].get<std::string>()
                                                                 : std::string();
        };
        return text("code") + " " + text("message");
    }
    std::string text = body.substr(0, 200);
    for (char& c : text) {
        c = static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
    return text;
}

std::string transport_error(httplib::Error error) {
    switch (error) {
        case httplib::Error::Connection:
        case httplib::Error::ConnectionTimeout:
            return "cannot connect";
        case httplib::Error::Read:
            return "the connection broke, or nothing came for " + std::to_string(kStallSeconds) +
                   " s";
        case httplib::Error::SSLServerVerification:
            return "the server's certificate is not trusted";
        default:
            return httplib::to_string(error);
    }
}

std::string lower(std::string text) {
    for (char& c : text) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return text;
}

}  // namespace

struct RegistryClient::Answer {
    int status = 0;
    std::string location;
    std::string challenge;
    std::string media_type;
    std::string error_body;
};

AuthChallenge parse_challenge(const std::string& header) {
    AuthChallenge challenge;
    const size_t space = header.find(' ');
    challenge.scheme = lower(header.substr(0, space));
    size_t at = space;
    while (at < header.size()) {
        at = header.find_first_not_of(" ,", at);
        const size_t equals = header.find('=', at);
        if (at == std::string::npos || equals == std::string::npos) {
            break;
        }
        const std::string key = lower(header.substr(at, equals - at));
        std::string value;
        if (equals + 1 < header.size() && header[equals + 1] == '"') {
            const size_t end = std::min(header.find('"', equals + 2), header.size());
            value = header.substr(equals + 2, end - equals - 2);
            at = end + 1;
        } else {
            const size_t end = std::min(header.find(',', equals), header.size());
            value = header.substr(equals + 1, end - equals - 1);
            at = end;
        }
        if (key == "realm") {
            challenge.realm = value;
        } else if (key == "service") {
            challenge.service = value;
        } else if (key == "scope") {
            challenge.scope = value;
        }
    }
    return challenge;
}

RegistryClient::RegistryClient(RegistryEndpoint endpoint, Reference reference, RegistryAuth auth,
                               std::function<bool()> cancelled)
    : endpoint_(std::move(endpoint)),
      reference_(std::move(reference)),
      auth_(std::move(auth)),
      cancelled_(std::move(cancelled)) {
    if (!auth_.registry_token.empty()) {
        authorization_ = "Bearer " + auth_.registry_token;
    }
}

RegistryClient::~RegistryClient() = default;

std::string RegistryClient::basic() const {
    return "Basic " + base64_encode(auth_.username + ":" + auth_.password);
}

Result<RegistryClient::Answer> RegistryClient::get_once(const std::string& url,
                                                        const std::string& accept,
                                                        const std::string& authorization,
                                                        const Sink& sink) {
    const auto [base, path] = split_url(url);
    const std::string step = "GET " + url.substr(0, url.find('?'));
    if (base.rfind("http://", 0) != 0 && base.rfind("https://", 0) != 0) {
        return Error(EINVAL, step + ": neither http nor https");
    }
    httplib::Client client(base);
    if (!client.is_valid()) {
        return Error(EINVAL, step + ": not a server's URL");
    }
    client.set_connection_timeout(kConnectSeconds);
    client.set_read_timeout(kStallSeconds);
    client.set_decompress(false);  // digests are of what was sent
    client.set_follow_location(false);
    client.set_url_encode(false);
    if (base.rfind("https://", 0) == 0) {
        client.enable_server_certificate_verification(!endpoint_.skip_verify);
        if (!endpoint_.ca_file.empty()) {
            client.set_ca_cert_path(endpoint_.ca_file.c_str());
        }
    }
    httplib::Headers headers = {{"User-Agent", "moatd"}};
    if (!accept.empty()) {
        headers.emplace("Accept", accept);
    }
    if (!authorization.empty()) {
        headers.emplace("Authorization", authorization);
    }
    Answer answer;
    Status sunk;
    bool stopped = false;
    const auto result = client.Get(
        path, headers,
        [&](const httplib::Response& response) {
            answer.status = response.status;
            answer.location = response.get_header_value("Location");
            answer.challenge = response.get_header_value("WWW-Authenticate");
            answer.media_type = response.get_header_value("Content-Type");
            return true;
        },
        [&](const char* data, size_t size) {
            if (cancelled_ && cancelled_()) {
                stopped = true;
                return false;
            }
            if (answer.status != 200) {
                answer.error_body.append(data,
                                         std::min(size, kMaxErrorBody - answer.error_body.size()));
                return true;
            }
            sunk = sink(data, size);
            return sunk.ok();
        });
    if (stopped) {
        return Error(ECANCELED, step + ": the client has gone");
    }
    if (!sunk.ok()) {
        return sunk.error().within(step);
    }
    if (!result) {
        return Error(EIO, step + ": " + transport_error(result.error()));
    }
    return answer;
}

Result<std::string> RegistryClient::authorize(const std::string& header) {
    const AuthChallenge challenge = parse_challenge(header);
    const bool known = !auth_.username.empty();
    if (challenge.scheme == "basic") {
        return known ? Result<std::string>(basic())
                     : Result<std::string>(Error(EACCES, "it asks for a password"));
    }
    if (challenge.scheme != "bearer" || challenge.realm.empty()) {
        return Error(EACCES,
                     "it asks for authentication of an unknown kind: " + header.substr(0, 100));
    }
    const std::string scope =
        challenge.scope.empty() ? "repository:" + reference_.path + ":pull" : challenge.scope;
    const std::string url = challenge.realm +
                            (challenge.realm.find('?') == std::string::npos ? "?" : "&") +
                            "service=" + httplib::detail::encode_query_param(challenge.service) +
                            "&scope=" + httplib::detail::encode_query_param(scope);
    std::string body;
    const Sink sink = [&](const char* data, size_t size) -> Status {
        body.append(data, size);
        return body.size() > kMaxErrorBody ? Status(Error(EBADMSG, "a token of more than 64 KiB"))
                                           : Status();
    };
    const Answer answer = TRY_STEP("token", get_once(url, "", known ? basic() : "", sink));
    const auto json = nlohmann::json::parse(body, nullptr, false);
    for (const char* key : {"token", "access_token"}) {
        if (answer.status == 200 && json.is_object() && json.contains(key) &&
            json[key].is_string()) {
            return "Bearer " + json[key].get<std::string>();
        }
    }
    return Error(EACCES, "token: status " + std::to_string(answer.status) + " " +
                             error_text(answer.error_body));
}

Result<RegistryClient::Answer> RegistryClient::get(const std::string& path,
                                                   const std::string& accept, const Sink& sink) {
    std::string url =
        endpoint_.url + (endpoint_.override_path ? "/" : "/v2/") + reference_.path + path;
    const std::string home = split_url(url).first;
    bool asked = false;
    for (int redirects = 0; redirects <= kMaxRedirects;) {
        const bool at_home = split_url(url).first == home;
        Answer answer = TRY(get_once(url, accept, at_home ? authorization_ : "", sink));
        if (answer.status == 401 && at_home && !asked) {
            asked = true;
            authorization_ = TRY_STEP(endpoint_.url, authorize(answer.challenge));
            continue;
        }
        if (answer.status >= 301 && answer.status <= 308 && !answer.location.empty()) {
            url = answer.location.front() == '/' ? split_url(url).first + answer.location
                                                 : answer.location;
            ++redirects;
            continue;
        }
        if (answer.status == 200) {
            return answer;
        }
        const int code = answer.status == 404                           ? ENOENT
                         : answer.status == 401 || answer.status == 403 ? EACCES
                                                                        : EIO;
        return Error(code, "GET " + url.substr(0, url.find('?')) + ": status " +
                               std::to_string(answer.status) + " " + error_text(answer.error_body));
    }
    return Error(EIO, "GET " + url.substr(0, url.find('?')) + ": too many redirects");
}

Result<FetchedManifest> RegistryClient::manifest(const std::string& target) {
    FetchedManifest manifest;
    const Sink sink = [&](const char* data, size_t size) -> Status {
        if (manifest.text.size() + size > kMaxManifest) {
            return Error(EFBIG,
                         "a manifest of more than " + std::to_string(kMaxManifest) + " bytes");
        }
        manifest.text.append(data, size);
        return {};
    };
    const Answer answer = TRY(get("/manifests/" + target, kAcceptedManifests, sink));
    manifest.media_type = answer.media_type.substr(0, answer.media_type.find(';'));
    manifest.digest = Sha256::of(manifest.text);
    if (is_digest(target) && manifest.digest != target) {
        return Error(EBADMSG, "manifest " + target + ": what came has digest " + manifest.digest);
    }
    return manifest;
}

/// Checks length and digest as the bytes pass.
Status RegistryClient::stream(const Descriptor& descriptor, const Sink& sink) {
    const std::string step = "blob " + descriptor.digest;
    Sha256 sum;
    int64_t length = 0;
    const Sink checked = [&](const char* data, size_t size) -> Status {
        length += static_cast<int64_t>(size);
        if (length > descriptor.size) {
            return Error(EBADMSG, "longer than the " + std::to_string(descriptor.size) +
                                      " bytes of its descriptor");
        }
        sum.update({data, size});
        return sink(data, size);
    };
    TRY_STEP(step, get("/blobs/" + descriptor.digest, "", checked));
    if (length != descriptor.size) {
        return Error(EBADMSG, step + ": " + std::to_string(length) + " bytes instead of the " +
                                  std::to_string(descriptor.size) + " of its descriptor");
    }
    if (const std::string digest = sum.digest(); digest != descriptor.digest) {
        return Error(EBADMSG, step + ": what came has digest " + digest);
    }
    return {};
}

Result<std::string> RegistryClient::blob(const Descriptor& descriptor, size_t max_bytes) {
    if (descriptor.size > static_cast<int64_t>(max_bytes)) {
        return Error(EFBIG, "blob " + descriptor.digest + ": more than " +
                                std::to_string(max_bytes) + " bytes");
    }
    std::string data;
    TRY(stream(descriptor, [&](const char* bytes, size_t size) -> Status {
        data.append(bytes, size);
        return {};
    }));
    return data;
}

Status RegistryClient::download(const Descriptor& descriptor, const std::string& path) {
    const ScopedFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) {
        return Error::from_errno(errno, "create " + path);
    }
    return stream(descriptor, [&](const char* bytes, size_t size) {
        return write_all(fd.get(), {bytes, size}, path);
    });
}

}  // namespace moat::cri
