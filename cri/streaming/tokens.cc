#include "cri/streaming/tokens.h"

#include <sys/random.h>

namespace moat::cri::streaming {

namespace {

/// 128 bits, in letters that mean nothing to a URL.
Result<std::string> random_token() {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
        return Error::from_errno(errno, "getrandom");
    }
    std::string token;
    for (const unsigned char byte : bytes) {
        static constexpr char kDigits[] = "0123456789abcdef";
        token += kDigits[byte >> 4];
        token += kDigits[byte & 15];
    }
    return token;
}

}  // namespace

Result<std::string> Tokens::add(Request request) {
    std::string token = TRY_HOST("streaming: token", random_token());
    const auto now = now_();
    const std::lock_guard lock(mu_);
    while (!by_age_.empty() && by_age_.front().expires < now) {
        entries_.erase(by_age_.front().token);
        by_age_.pop_front();
    }
    if (by_age_.size() >= kMost) {
        return Error(ENOSPC, "streaming: " + std::to_string(kMost) +
                                 " requests wait for their clients already");
    }
    by_age_.push_back({token, std::move(request), now + kLifetime});
    entries_[token] = std::prev(by_age_.end());
    return token;
}

Result<Request> Tokens::take(const std::string& token) {
    const std::lock_guard lock(mu_);
    const auto it = entries_.find(token);
    if (it == entries_.end()) {
        return not_found("streaming: no such token");
    }
    Entry entry = std::move(*it->second);
    by_age_.erase(it->second);
    entries_.erase(it);
    if (entry.expires < now_()) {
        return not_found("streaming: the token has expired");
    }
    return std::move(entry.request);
}

}  // namespace moat::cri::streaming
