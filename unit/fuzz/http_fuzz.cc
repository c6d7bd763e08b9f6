// An HTTP request as the streaming server takes it: Beast reads it apart, we decide.

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdlib>

#include "cri/streaming/negotiate.h"
#include "cri/streaming/remote_status.h"

using namespace moat::cri::streaming;
namespace http = boost::beast::http;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    http::request_parser<http::empty_body> parser;
    parser.header_limit(16 << 10);
    parser.body_limit(0);
    boost::system::error_code error;
    parser.put(boost::asio::buffer(data, size), error);
    const auto& request = parser.get();
    Handshake handshake;
    handshake.method = std::string(request.method_string());
    handshake.target = std::string(request.target());
    for (const auto& [name, list] :
         {std::pair("Connection", &handshake.connection), std::pair("Upgrade", &handshake.upgrade),
          std::pair("X-Stream-Protocol-Version", &handshake.stream_protocols),
          std::pair("Sec-WebSocket-Protocol", &handshake.websocket_protocols)}) {
        const auto range = request.equal_range(name);
        for (auto it = range.first; it != range.second; ++it) {
            list->emplace_back(it->value());
        }
    }
    const auto target = parse_target(handshake.target);
    if (target && target->token.find('/') != std::string::npos) {
        abort();
    }
    for (const Endpoint endpoint : {Endpoint::kExec, Endpoint::kPortForward}) {
        const Decision decision = negotiate(handshake, endpoint);
        const bool refused = decision.kind == Decision::Kind::kRefused;
        if (refused != (decision.status >= 400) || protocol_version(decision.protocol) > 9) {
            abort();
        }
    }
    SizeParser sizes;
    (void)sizes.feed({reinterpret_cast<const char*>(data), size});
    return 0;
}
