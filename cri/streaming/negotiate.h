#pragma once

// HTTP before the upgrade: which of the client's protocols is spoken, or which error it gets. What
// is accepted and refused, and how, is cri-streaming's (k8s.io/cri-streaming).

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::cri::streaming {

/// The parts of a request that decide. Lists are the values of all headers of the name.
struct Handshake {
    std::string method;
    std::string target;
    std::vector<std::string> connection;
    std::vector<std::string> upgrade;
    std::vector<std::string> stream_protocols;     ///< X-Stream-Protocol-Version
    std::vector<std::string> websocket_protocols;  ///< Sec-WebSocket-Protocol
};

enum class Endpoint { kExec, kAttach, kPortForward };

struct Target {
    Endpoint endpoint;
    std::string token;
};
/// "/exec/TOKEN" and its like, a query is ignored. Nothing: not found.
std::optional<Target> parse_target(std::string_view target);

struct Decision {
    enum class Kind {
        kRefused,
        kSpdy,
        kWebSocket,        ///< channels
        kWebSocketTunnel,  ///< SPDY in its messages
    };
    Kind kind = Kind::kRefused;
    std::string protocol;  ///< "v4.channel.k8s.io"; WebSocket: may be "" if the client named none
    int status = 0;        ///< of a refusal
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;  ///< of the answer
};
Decision negotiate(const Handshake& handshake, Endpoint endpoint);

/// 4 for "v4.channel.k8s.io" and "v4.base64.channel.k8s.io", 1 for "channel.k8s.io" and "".
int protocol_version(std::string_view protocol);

}  // namespace moat::cri::streaming
