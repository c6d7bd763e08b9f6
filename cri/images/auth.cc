#include "cri/images/auth.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cri/base/base64.h"

namespace moat::cri {

namespace {

constexpr size_t kMaxToken = 256 << 10;
constexpr int64_t kTokenSeconds = 60;

std::string lower(std::string text) {
    for (char& c : text) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return text;
}

/// The host, with its port if it has one, of "https://host:port/v1/" or of a bare host.
std::string host_of(const std::string& address) {
    const size_t scheme = address.find("://");
    const std::string rest = scheme == std::string::npos ? address : address.substr(scheme + 3);
    return lower(rest.substr(0, rest.find('/')));
}

/// Whether `address` (of AuthConfig.server_address) means the server at `url`.
bool is_for(const std::string& address, const std::string& url) {
    const std::string wanted = host_of(address);
    const std::string host = host_of(url);
    const auto is_hub = [](const std::string& name) {
        return name == "docker.io" || name == "index.docker.io" || name == "registry-1.docker.io";
    };
    return wanted.empty() || wanted == host || (is_hub(wanted) && is_hub(host));
}

/// What a token server says of its refusal, if it says so in the forms that are known.
std::string token_error(const std::string& body) {
    const auto json = nlohmann::json::parse(body, nullptr, false);
    const auto text = [](const nlohmann::json& object, const char* key) {
        return object.is_object() && object.contains(key) && object[key].is_string()
                   ? " " + object[key].get<std::string>().substr(0, 200)
                   : std::string();
    };
    if (!json.is_object()) {
        return "";
    }
    if (json.contains("errors") && json["errors"].is_array() && !json["errors"].empty()) {
        return text(json["errors"][0], "code") + text(json["errors"][0], "message");
    }
    return text(json, "error") + text(json, "error_description") + text(json, "details");
}

}  // namespace

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

Authorizer::Authorizer(HttpClient& http, std::string url, std::string path, RegistryAuth auth)
    : http_(http), url_(std::move(url)), path_(std::move(path)), auth_(std::move(auth)) {
    if (!is_for(auth_.server_address, url_)) {
        auth_ = {};
    }
    if (!auth_.registry_token.empty()) {
        header_ = "Bearer " + auth_.registry_token;
    }
}

std::string Authorizer::header() {
    const std::lock_guard lock(mu_);
    return header_;
}

std::string Authorizer::basic() const {
    return "Basic " + base64_encode(auth_.username + ":" + auth_.password);
}

Status Authorizer::refresh(const std::vector<std::string>& challenges, const std::string& used) {
    const std::lock_guard lock(mu_);
    if (header_ != used) {
        return {};
    }
    if (!auth_.registry_token.empty()) {
        return Error(EACCES, "the registry token that came with the request is refused");
    }
    std::string seen;
    for (const std::string& text : challenges) {
        const AuthChallenge challenge = parse_challenge(text);
        if (challenge.scheme == "bearer" && !challenge.realm.empty()) {
            header_ = "Bearer " + TRY_STEP("token", token(challenge));
            return {};
        }
        if (challenge.scheme == "basic") {
            if (auth_.username.empty()) {
                return Error(EACCES, "it asks for a password, and none came with the request");
            }
            if (used == basic()) {
                return Error(EACCES,
                             "it refuses the user \"" + auth_.username + "\" or the password");
            }
            header_ = basic();
            return {};
        }
        seen += (seen.empty() ? "" : ", ") + text.substr(0, 100);
    }
    return Error(EACCES, "it asks for authentication of an unknown kind: \"" + seen + "\"");
}

Result<std::string> Authorizer::token(const AuthChallenge& challenge) {
    if (url_.rfind("https://", 0) == 0 && lower(challenge.realm).rfind("https://", 0) != 0) {
        return Error(EACCES, "the registry is reached by https, its token server " +
                                 url_without_query(challenge.realm) + " is not");
    }
    const std::string scope =
        challenge.scope.empty() ? "repository:" + path_ + ":pull" : challenge.scope;
    const std::string query =
        "service=" + HttpClient::encode(challenge.service) + "&scope=" + HttpClient::encode(scope);
    HttpRequest request;
    request.url = challenge.realm;
    request.total_seconds = kTokenSeconds;
    request.client_certificate = url_origin(challenge.realm) == url_origin(url_);
    if (!auth_.identity_token.empty() && auth_.password.empty()) {
        request.form = "grant_type=refresh_token&client_id=moatd&" + query +
                       "&refresh_token=" + HttpClient::encode(auth_.identity_token);
    } else {
        request.url += (challenge.realm.find('?') == std::string::npos ? "?" : "&") + query;
        if (!auth_.username.empty()) {
            request.secrets.emplace_back("Authorization", basic());
        }
    }
    std::string body;
    const HttpSink sink = {.headers = {}, .data = [&](std::string_view data) -> Status {
                               body += data;
                               return body.size() > kMaxToken
                                          ? Status(Error(EBADMSG, "a token of more than 256 KiB"))
                                          : Status();
                           }};
    const HttpAnswer answer = TRY(http_.send_following(request, sink));
    const std::string step = url_without_query(challenge.realm) + ": ";
    if (answer.status != 200) {
        const bool refused = answer.status >= 400 && answer.status < 500 && answer.status != 429;
        return Error(refused ? EACCES : EAGAIN, step + "status " + std::to_string(answer.status) +
                                                    token_error(answer.error_body));
    }
    const auto json = nlohmann::json::parse(body, nullptr, false);
    for (const char* key : {"token", "access_token"}) {
        if (json.is_object() && json.contains(key) && json[key].is_string()) {
            const auto token = json[key].get<std::string>();
            if (!token.empty() && token.find_first_of("\r\n") == std::string::npos) {
                return token;
            }
        }
    }
    return Error(EACCES, step + "the answer has no token");
}

}  // namespace moat::cri
