#include "cri/streaming/remote_status.h"

#include <nlohmann/json.hpp>

namespace moat::cri::streaming {

namespace {

using Json = nlohmann::json;

constexpr size_t kLongestSize = 1024;

/// Go's decoder takes a field in any case; clients send both.
uint16_t dimension(const Json& object, const char* name, const char* other) {
    for (const char* key : {name, other}) {
        const auto it = object.find(key);
        if (it != object.end() && it->is_number_unsigned()) {
            return static_cast<uint16_t>(std::min<uint64_t>(it->get<uint64_t>(), 0xffff));
        }
    }
    return 0;
}

}  // namespace

RemoteStatus RemoteStatus::exited(int32_t code, const std::vector<std::string>& command) {
    if (code == 0) {
        return {};
    }
    std::string words;
    for (const std::string& word : command) {
        words += (words.empty() ? "" : " ") + word;
    }
    return {Kind::kExitCode, code,
            "command terminated with non-zero exit code: error executing command [" + words +
                "], exit code " + std::to_string(code)};
}

RemoteStatus RemoteStatus::failed(std::string what) {
    return {Kind::kError, 0, "Internal error occurred: " + std::move(what)};
}

std::string RemoteStatus::text(int protocol_version) const {
    if (protocol_version < 4) {
        return kind == Kind::kSuccess ? "" : message;
    }
    Json status;
    switch (kind) {
        case Kind::kSuccess:
            status = {{"status", "Success"}};
            break;
        case Kind::kExitCode:
            status = {
                {"status", "Failure"},
                {"message", message},
                {"reason", "NonZeroExitCode"},
                {"details",
                 {{"causes", {{{"reason", "ExitCode"}, {"message", std::to_string(exit_code)}}}}}}};
            break;
        case Kind::kError:
            status = {{"status", "Failure"},
                      {"message", message},
                      {"reason", "InternalError"},
                      {"code", 500}};
            break;
    }
    return status.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<SizeParser::Size> SizeParser::feed(std::string_view bytes) {
    std::vector<Size> sizes;
    while (!broken_ && !bytes.empty()) {
        // The objects are flat, so the first brace that closes ends one.
        const size_t end = bytes.find('}');
        const std::string_view piece =
            bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1);
        bytes.remove_prefix(piece.size());
        if (begun_.size() + piece.size() > kLongestSize) {
            broken_ = true;
            break;
        }
        begun_ += piece;
        if (end == std::string_view::npos) {
            break;
        }
        const Json object = Json::parse(begun_, nullptr, false);
        begun_.clear();
        if (!object.is_object()) {
            broken_ = true;
            break;
        }
        sizes.push_back(
            {dimension(object, "Height", "height"), dimension(object, "Width", "width")});
    }
    return sizes;
}

}  // namespace moat::cri::streaming
