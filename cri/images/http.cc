#include "cri/images/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "cri/base/files.h"

namespace moat::cri {

namespace {

constexpr long kConnectSeconds = 30;
/// Less than this over the stall time is no transfer, but a way to keep us waiting.
constexpr long kSlowBytesPerSecond = 256;
constexpr size_t kMaxHeaders = 64 << 10;
constexpr size_t kMaxErrorBody = 64 << 10;
constexpr size_t kMaxCertificates = 4 << 20;
constexpr int kMaxRedirects = 5;

bool same_word(std::string_view a, std::string_view b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
               return std::tolower(static_cast<unsigned char>(x)) ==
                      std::tolower(static_cast<unsigned char>(y));
           });
}

/// One exchange: what curl's callbacks need.
struct Exchange {
    CURL* curl;
    const HttpSink& sink;
    const std::function<bool()>& cancelled;
    HttpAnswer answer;
    size_t header_bytes = 0;
    bool began = false;   ///< the sink has seen the headers
    bool enough = false;  ///< the error body is longer than anybody wants to know
    Status status;
    bool gone = false;

    bool success() {
        if (answer.status == 0) {
            long code = 0;
            curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
            answer.status = static_cast<int>(code);
            curl_off_t length = -1;
            curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
            answer.content_length = length;
        }
        return answer.status == 200 || answer.status == 206;
    }
    Status begin() {
        if (began || !success()) {
            return {};
        }
        began = true;
        return sink.headers ? sink.headers(answer) : Status();
    }
    void header(std::string_view line) {
        if (line.rfind("HTTP/", 0) == 0) {
            answer = HttpAnswer();  // of the last answer only: 1xx come before it
            return;
        }
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos) {
            return;
        }
        const std::string_view name = line.substr(0, colon);
        std::string_view value = line.substr(colon + 1);
        while (!value.empty() && std::isspace(static_cast<unsigned char>(value.front())) != 0) {
            value.remove_prefix(1);
        }
        while (!value.empty() && std::isspace(static_cast<unsigned char>(value.back())) != 0) {
            value.remove_suffix(1);
        }
        if (same_word(name, "Location")) {
            answer.location = value;
        } else if (same_word(name, "WWW-Authenticate")) {
            answer.challenges.emplace_back(value);
        } else if (same_word(name, "Content-Type")) {
            answer.media_type = value.substr(0, value.find(';'));
        } else if (same_word(name, "Content-Range")) {
            answer.content_range = value;
        }
    }
};

size_t header_callback(char* data, size_t, size_t size, void* self) {
    auto& exchange = *static_cast<Exchange*>(self);
    exchange.header_bytes += size;
    if (exchange.header_bytes > kMaxHeaders) {
        exchange.status =
            Error(EPROTO, "headers of more than " + std::to_string(kMaxHeaders >> 10) + " KiB");
        return 0;
    }
    exchange.header({data, size});
    return size;
}

size_t write_callback(char* data, size_t, size_t size, void* self) {
    auto& exchange = *static_cast<Exchange*>(self);
    if (!exchange.success()) {
        std::string& body = exchange.answer.error_body;
        body.append(data, std::min(size, kMaxErrorBody - body.size()));
        exchange.enough = body.size() == kMaxErrorBody;
        return exchange.enough ? 0 : size;
    }
    exchange.status = exchange.begin();
    if (exchange.status.ok()) {
        exchange.status = exchange.sink.data({data, size});
    }
    return exchange.status.ok() ? size : 0;
}

/// Called at least once a second, also while nothing comes.
int progress_callback(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& exchange = *static_cast<Exchange*>(self);
    exchange.gone = exchange.gone || (exchange.cancelled && exchange.cancelled());
    return exchange.gone ? 1 : 0;
}

Error transport_error(CURLcode code, const char* detail, int64_t stall_seconds) {
    const std::string text = *detail != '\0' ? detail : curl_easy_strerror(code);
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
            return Error(ECONNREFUSED, "cannot connect: " + text);
        case CURLE_OPERATION_TIMEDOUT:
            return Error(ETIMEDOUT,
                         "stalled (the limit is " + std::to_string(stall_seconds) + " s): " + text);
        case CURLE_PARTIAL_FILE:
        case CURLE_RECV_ERROR:
        case CURLE_SEND_ERROR:
        case CURLE_GOT_NOTHING:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
            return Error(ECONNRESET, "the connection broke: " + text);
        case CURLE_PEER_FAILED_VERIFICATION:
            return Error(EPROTO, "the server's certificate is not trusted: " + text);
        case CURLE_UNSUPPORTED_PROTOCOL:
            return Error(EPROTO, "neither http nor https");
        default:
            return Error(EPROTO, text);
    }
}

/// Globals of libcurl, before any handle; never freed, as other threads may be in it.
bool curl_is_ready() {
    static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    return ready;
}

std::string url_part(CURLU* url, CURLUPart part, unsigned flags = 0) {
    char* text = nullptr;
    if (curl_url_get(url, part, &text, flags) != CURLUE_OK) {
        return "";
    }
    const std::string result = text;
    curl_free(text);
    return result;
}

using Url = std::unique_ptr<CURLU, void (*)(CURLU*)>;

}  // namespace

struct HttpClient::Handle {
    CURL* curl = curl_easy_init();
    curl_slist* headers = nullptr;
    char detail[CURL_ERROR_SIZE] = {};

    Handle() = default;
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
        curl_easy_cleanup(curl);
        curl_slist_free_all(headers);
    }
    void set_headers(const HttpRequest& request) {
        curl_slist_free_all(headers);
        headers = nullptr;
        for (const auto* list : {&request.headers, &request.secrets}) {
            for (const auto& [name, value] : *list) {
                headers = curl_slist_append(headers, (name + ": " + value).c_str());
            }
        }
    }
};

HttpClient::HttpClient(TlsFiles tls, int64_t stall_seconds, std::function<bool()> cancelled)
    : tls_(std::move(tls)), stall_seconds_(stall_seconds), cancelled_(std::move(cancelled)) {}

HttpClient::~HttpClient() = default;

Status HttpClient::load_certificates() {
    if (loaded_) {
        return {};
    }
    for (const std::string& file : tls_.ca) {
        ca_ += TRY_STEP("ca", read_file(file, kMaxCertificates)) + "\n";
    }
    loaded_ = true;
    return {};
}

Result<std::unique_ptr<HttpClient::Handle>> HttpClient::take() {
    const std::lock_guard lock(mu_);
    TRY(load_certificates());
    std::unique_ptr<Handle> handle;
    if (!idle_.empty()) {
        handle = std::move(idle_.back());
        idle_.pop_back();
        curl_easy_reset(handle->curl);  // keeps its connections
        handle->detail[0] = '\0';
    } else if (curl_is_ready()) {
        handle = std::make_unique<Handle>();
    }
    if (handle == nullptr || handle->curl == nullptr) {
        return Error(ENOMEM, "libcurl cannot be initialised");
    }
    return handle;
}

Result<HttpAnswer> HttpClient::send(const HttpRequest& request, const HttpSink& sink) {
    const std::string step =
        (request.form.empty() ? "GET " : "POST ") + url_without_query(request.url);
    std::unique_ptr<Handle> handle = TRY_STEP(step, take());
    CURL* curl = handle->curl;
    Exchange exchange{
        .curl = curl, .sink = sink, .cancelled = cancelled_, .answer = {}, .status = {}};
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, handle->detail);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "moatd");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, std::min<long>(kConnectSeconds, stall_seconds_));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(stall_seconds_));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, kSlowBytesPerSecond);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, static_cast<long>(request.total_seconds));
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, header_callback);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, write_callback);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, progress_callback);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, tls_.skip_verify ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, tls_.skip_verify ? 0L : 2L);
    if (!ca_.empty()) {
        // In place of the bundle's file; the system's directory of certificates stays.
        curl_blob blob{
            .data = const_cast<char*>(ca_.data()), .len = ca_.size(), .flags = CURL_BLOB_NOCOPY};
        curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
    }
    if (request.client_certificate && !tls_.client.empty()) {
        const auto& [certificate, key] = tls_.client.front();
        curl_easy_setopt(curl, CURLOPT_SSLCERT, certificate.c_str());
        curl_easy_setopt(curl, CURLOPT_SSLKEY, (key.empty() ? certificate : key).c_str());
    }
    if (!request.form.empty()) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.form.size()));
        curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, request.form.c_str());
    }
    handle->set_headers(request);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, handle->headers);
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());

    const CURLcode code = curl_easy_perform(curl);
    if (exchange.gone) {
        return Error(ECANCELED, step + ": the client has gone");
    }
    if (!exchange.status.ok()) {
        return exchange.status.error().within(step);
    }
    if (code != CURLE_OK && !exchange.enough) {
        return transport_error(code, handle->detail, stall_seconds_).within(step);
    }
    TRY_STEP(step, exchange.begin());  // of a success without a body
    curl_off_t retry_after = 0;
    curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
    exchange.answer.retry_after = retry_after;
    if (code == CURLE_OK) {
        const std::lock_guard lock(mu_);
        idle_.push_back(std::move(handle));
    }
    return std::move(exchange.answer);
}

Result<HttpAnswer> HttpClient::send_following(const HttpRequest& first, const HttpSink& sink) {
    HttpRequest request = first;
    const std::string home = url_origin(first.url);
    for (int redirects = 0;; ++redirects) {
        HttpAnswer answer = TRY(send(request, sink));
        const bool redirect = answer.status >= 301 && answer.status <= 308 &&
                              answer.status != 304 && answer.status != 305 &&
                              !answer.location.empty();
        if (!redirect) {
            answer.elsewhere = url_origin(request.url) != home;
            return answer;
        }
        const std::string step = "GET " + url_without_query(request.url);
        if (redirects == kMaxRedirects) {
            return Error(EPROTO, step + ": too many redirects");
        }
        std::string next = TRY_STEP(step + ": redirect", url_resolve(request.url, answer.location));
        if (request.url.rfind("https://", 0) == 0 && next.rfind("https://", 0) != 0) {
            return Error(
                EPROTO, step + ": redirect from https to " + url_without_query(next) + ": refused");
        }
        request.url = std::move(next);
        request.form.clear();
        const bool at_home = url_origin(request.url) == home;
        request.secrets = at_home ? first.secrets : decltype(first.secrets)();
        request.client_certificate = at_home && first.client_certificate;
    }
}

std::string HttpClient::encode(const std::string& text) {
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (std::isalnum(byte) != 0 || std::strchr("-._~", c) != nullptr) {
            out += c;
        } else {
            static constexpr char kDigits[] = "0123456789ABCDEF";
            out += '%';
            out += kDigits[byte >> 4];
            out += kDigits[byte & 15];
        }
    }
    return out;
}

std::string url_origin(const std::string& text) {
    const Url url(curl_url(), curl_url_cleanup);
    if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
        return "";
    }
    std::string origin = url_part(url.get(), CURLUPART_SCHEME) + "://" +
                         url_part(url.get(), CURLUPART_HOST) + ":" +
                         url_part(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
    for (char& c : origin) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return origin;
}

std::string url_without_query(const std::string& url) { return url.substr(0, url.find('?')); }

Result<std::string> url_resolve(const std::string& base, const std::string& location) {
    const Url url(curl_url(), curl_url_cleanup);
    // Setting a second URL resolves it against the first (curl_url_set(3)).
    if (curl_url_set(url.get(), CURLUPART_URL, base.c_str(), 0) != CURLUE_OK ||
        curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK) {
        return Error(EPROTO, "not a URL: " + location.substr(0, 200));
    }
    return url_part(url.get(), CURLUPART_URL);
}

}  // namespace moat::cri
