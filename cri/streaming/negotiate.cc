#include "cri/streaming/negotiate.h"

#include <algorithm>
#include <cctype>

namespace moat::cri::streaming {

namespace {

const std::vector<std::string> kRemoteCommandSpdy = {"v4.channel.k8s.io", "v3.channel.k8s.io",
                                                     "v2.channel.k8s.io", "channel.k8s.io"};
const std::vector<std::string> kPortForwardSpdy = {"portforward.k8s.io"};
// "": a client that names no protocol.
const std::vector<std::string> kRemoteCommandWebSocket = {
    "v5.channel.k8s.io", "v4.channel.k8s.io",     "v4.base64.channel.k8s.io",
    "channel.k8s.io",    "base64.channel.k8s.io", ""};
const std::vector<std::string> kPortForwardWebSocket = {
    "SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""};

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

/// Some header has `what` in it, in whatever case.
bool mentions(const std::vector<std::string>& headers, std::string_view what) {
    return std::any_of(headers.begin(), headers.end(), [&](const std::string& header) {
        return lower(header).find(what) != std::string::npos;
    });
}

std::vector<std::string> split(const std::vector<std::string>& headers) {
    std::vector<std::string> items;
    for (const std::string& header : headers) {
        for (size_t from = 0; from <= header.size();) {
            const size_t to = std::min(header.find(',', from), header.size());
            std::string_view item = std::string_view(header).substr(from, to - from);
            while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) {
                item.remove_prefix(1);
            }
            while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) {
                item.remove_suffix(1);
            }
            if (!item.empty()) {
                items.emplace_back(item);
            }
            from = to + 1;
        }
    }
    return items;
}

std::string join(const std::vector<std::string>& items) {
    std::string text = "[";
    for (const std::string& item : items) {
        text += (text.size() > 1 ? " " : "") + item;
    }
    return text + "]";
}

/// The client's first choice among what we speak.
const std::string* choose(const std::vector<std::string>& offered,
                          const std::vector<std::string>& supported) {
    for (const std::string& one : offered) {
        const auto found = std::find(supported.begin(), supported.end(), one);
        if (found != supported.end()) {
            return &*found;
        }
    }
    return nullptr;
}

Decision refuse(int status, std::string body) {
    Decision decision;
    decision.status = status;
    decision.body = std::move(body) + "\n";
    return decision;
}

Decision negotiate_websocket(const Handshake& handshake, Endpoint endpoint) {
    const auto& supported =
        endpoint == Endpoint::kPortForward ? kPortForwardWebSocket : kRemoteCommandWebSocket;
    auto offered = split(handshake.websocket_protocols);
    if (offered.empty()) {
        offered.emplace_back();
    }
    const std::string* chosen = choose(offered, supported);
    if (chosen == nullptr) {
        return refuse(403, "requested protocol(s) are not supported: " + join(offered) +
                               "; supports " + join(supported));
    }
    Decision decision;
    decision.kind = chosen->rfind("SPDY/", 0) == 0 ? Decision::Kind::kWebSocketTunnel
                                                   : Decision::Kind::kWebSocket;
    decision.protocol = *chosen;
    return decision;
}

}  // namespace

std::optional<Target> parse_target(std::string_view target) {
    target = target.substr(0, target.find_first_of("?#"));
    static constexpr std::pair<std::string_view, Endpoint> kPaths[] = {
        {"/exec/", Endpoint::kExec},
        {"/attach/", Endpoint::kAttach},
        {"/portforward/", Endpoint::kPortForward}};
    for (const auto& [path, endpoint] : kPaths) {
        if (target.substr(0, path.size()) == path) {
            const std::string_view token = target.substr(path.size());
            if (token.empty() || token.find('/') != std::string_view::npos) {
                return std::nullopt;
            }
            return Target{endpoint, std::string(token)};
        }
    }
    return std::nullopt;
}

Decision negotiate(const Handshake& handshake, Endpoint endpoint) {
    if (handshake.method != "GET" && handshake.method != "POST") {
        return refuse(405, "405: Method Not Allowed");
    }
    const bool upgrades = mentions(handshake.connection, "upgrade");
    if (upgrades && std::any_of(handshake.upgrade.begin(), handshake.upgrade.end(),
                                [](const auto& value) { return lower(value) == "websocket"; })) {
        return negotiate_websocket(handshake, endpoint);
    }
    if (handshake.stream_protocols.empty()) {
        return refuse(400, "unable to upgrade: header X-Stream-Protocol-Version does not exist");
    }
    const auto offered = split(handshake.stream_protocols);
    if (offered.empty()) {
        return refuse(400,
                      "unable to upgrade: header X-Stream-Protocol-Version has no valid protocols");
    }
    const auto& supported =
        endpoint == Endpoint::kPortForward ? kPortForwardSpdy : kRemoteCommandSpdy;
    const std::string* chosen = choose(offered, supported);
    if (chosen == nullptr) {
        Decision decision =
            refuse(403, "unable to upgrade: unable to negotiate protocol: client supports " +
                            join(offered) + ", server accepts " + join(supported));
        for (const std::string& one : supported) {
            decision.headers.emplace_back("X-Accepted-Stream-Protocol-Versions", one);
        }
        return decision;
    }
    if (!upgrades || !mentions(handshake.upgrade, "spdy/3.1")) {
        return refuse(400, "unable to upgrade: missing upgrade headers in request");
    }
    Decision decision;
    decision.kind = Decision::Kind::kSpdy;
    decision.protocol = *chosen;
    decision.status = 101;
    decision.headers = {
        {"Connection", "Upgrade"}, {"Upgrade", "SPDY/3.1"}, {"X-Stream-Protocol-Version", *chosen}};
    return decision;
}

int protocol_version(std::string_view protocol) {
    return protocol.size() > 2 && protocol[0] == 'v' && protocol[2] == '.' ? protocol[1] - '0' : 1;
}

}  // namespace moat::cri::streaming
