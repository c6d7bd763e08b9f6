#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri::streaming {

/// What a client may ask for by a URL; the fields are those of the CRI's requests.
struct ExecRequest {
    std::string container_id;
    std::vector<std::string> command;
    bool tty = false;
    bool in = false;
    bool out = false;
    bool err = false;
};
struct AttachRequest {
    std::string container_id;
    bool tty = false;
    bool in = false;
    bool out = false;
    bool err = false;
};
struct PortForwardRequest {
    std::string pod_id;
    std::vector<int32_t> ports;  ///< only WebSocket's channels need them; SPDY names them itself
};
using Request = std::variant<ExecRequest, AttachRequest, PortForwardRequest>;

/// Requests that wait for their client. A token is a secret, works once and for a minute.
class Tokens {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::seconds kLifetime{60};
    static constexpr size_t kMost = 1000;

    explicit Tokens(std::function<Clock::time_point()> now = Clock::now) : now_(std::move(now)) {}

    /// ENOSPC: kMost wait already.
    Result<std::string> add(Request request);
    /// ENOENT: never given, used, or expired.
    Result<Request> take(const std::string& token);

  private:
    struct Entry {
        std::string token;
        Request request;
        Clock::time_point expires;
    };
    const std::function<Clock::time_point()> now_;
    std::mutex mu_;
    std::list<Entry> by_age_;                                    ///< guarded by mu_; oldest first
    std::map<std::string, std::list<Entry>::iterator> entries_;  ///< guarded by mu_
};

}  // namespace moat::cri::streaming
