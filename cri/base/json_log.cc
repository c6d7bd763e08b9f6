#include "cri/base/json_log.h"

#include <spdlog/details/log_msg.h>
#include <time.h>

#include <nlohmann/json.hpp>

namespace moat::cri {

namespace {

class JsonFormatter final : public spdlog::formatter {
  public:
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& into) override {
        const auto since = message.time.time_since_epoch();
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
        const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(since - seconds);
        const time_t whole = seconds.count();
        tm parts{};
        gmtime_r(&whole, &parts);
        char stamp[64];
        const size_t length = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(stamp + length, sizeof(stamp) - length, ".%06dZ",
                 static_cast<int>(micros.count()));
        const auto level = spdlog::level::to_string_view(message.level);
        const nlohmann::json line = {
            {"time", stamp},
            {"level", std::string(level.data(), level.size())},
            {"msg", std::string(message.payload.data(), message.payload.size())},
        };
        const std::string text =
            line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
        into.append(text.data(), text.data() + text.size());
    }
    std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JsonFormatter>();
    }
};

}  // namespace

std::unique_ptr<spdlog::formatter> make_json_formatter() {
    return std::make_unique<JsonFormatter>();
}

}  // namespace moat::cri
