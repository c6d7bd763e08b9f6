#include "cri/base/log.h"

#include <spdlog/details/log_msg.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "cri/base/settings.h"

namespace moat::cri {

namespace {

thread_local LogScope* innermost = nullptr;

// How log_event() gets fields through spdlog, which knows a message only: a mark in front, then
// message and fields, each behind a separator. No text that anybody else logs begins with the mark.
constexpr char kMark = '\x1d';
constexpr char kNextField = '\x1f';
constexpr char kNextValue = '\x1e';

std::string without_separators(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c >= kMark && c <= kNextField; }, '?');
    return text;
}

bool is_bare(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
    });
}

std::string json_string(std::string_view text) {
    return nlohmann::json(std::string(text))
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

class LineFormatter final : public spdlog::formatter {
  public:
    explicit LineFormatter(LogFormat format) : format_(format) {}

    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& into) override {
        const auto level = spdlog::level::to_string_view(message.level);
        std::vector<std::pair<std::string_view, std::string_view>> fields;
        std::string_view text(message.payload.data(), message.payload.size());
        if (!text.empty() && text.front() == kMark) {
            std::string_view rest = text.substr(1);
            const size_t end = std::min(rest.find(kNextField), rest.size());
            text = rest.substr(0, end);
            rest.remove_prefix(end);
            while (!rest.empty()) {
                const size_t next = std::min(rest.find(kNextField, 1), rest.size());
                const std::string_view field = rest.substr(1, next - 1);
                const size_t value = std::min(field.find(kNextValue), field.size());
                fields.emplace_back(field.substr(0, value),
                                    field.substr(std::min(value + 1, field.size())));
                rest.remove_prefix(next);
            }
        }
        for (const LogScope* scope = innermost; scope != nullptr; scope = scope->outer_) {
            const bool known = std::any_of(fields.begin(), fields.end(), [&](const auto& field) {
                return field.first == scope->key_;
            });
            if (!known) {
                fields.emplace_back(scope->key_, scope->value_);
            }
        }
        std::string line;
        add(line, "time", stamp(message));
        add(line, "level", std::string_view(level.data(), level.size()));
        add(line, "msg", text);
        for (const auto& [key, value] : fields) {
            add(line, key, value);
        }
        line = format_ == LogFormat::kJson ? "{" + line + "}\n" : line + "\n";
        into.append(line.data(), line.data() + line.size());
    }

    std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<LineFormatter>(format_);
    }

  private:
    static std::string stamp(const spdlog::details::log_msg& message) {
        const auto since = message.time.time_since_epoch();
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
        const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(since - seconds);
        const time_t whole = seconds.count();
        tm parts{};
        gmtime_r(&whole, &parts);
        char text[64];
        const size_t length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(text + length, sizeof(text) - length, ".%06dZ", static_cast<int>(micros.count()));
        return text;
    }

    void add(std::string& line, std::string_view key, std::string_view value) const {
        if (format_ == LogFormat::kJson) {
            line += (line.empty() ? "" : ",") + json_string(key) + ":" + json_string(value);
        } else {
            line += line.empty() ? "" : " ";
            line += key;
            line += '=';
            line += is_bare(value) ? std::string(value) : json_string(value);
        }
    }

    const LogFormat format_;
};

std::unique_ptr<spdlog::formatter> make_log_formatter(LogFormat format) {
    return std::make_unique<LineFormatter>(format);
}

void start_log(const Settings& settings) {
    spdlog::set_default_logger(spdlog::stderr_logger_mt("moatd"));
    configure_log(settings);
}

void configure_log(const Settings& settings) {
    spdlog::set_level(spdlog::level::from_str(settings.log_level));
    spdlog::set_formatter(
        make_log_formatter(settings.log_json ? LogFormat::kJson : LogFormat::kText));
}

void log_event(spdlog::level::level_enum level, std::string_view message,
               std::initializer_list<LogField> fields) {
    if (!spdlog::should_log(level)) {
        return;
    }
    std::string text = kMark + without_separators(std::string(message));
    for (const LogField& field : fields) {
        text += kNextField;
        text += field.key;
        text += kNextValue;
        text += without_separators(field.value);
    }
    spdlog::log(level, spdlog::string_view_t(text.data(), text.size()));
}

LogScope::LogScope(std::string_view key, std::string value)
    : key_(key), value_(std::move(value)), outer_(innermost) {
    innermost = this;
}
LogScope::~LogScope() { innermost = outer_; }

LogLimit::Verdict LogLimit::admit(int64_t now_ms) {
    const std::lock_guard lock(mu_);
    tokens_ = std::min<double>(
        burst_, tokens_ + static_cast<double>(now_ms - last_ms_) * per_second_ / 1000.0);
    last_ms_ = now_ms;
    Verdict verdict{tokens_ >= 1, 0};
    if (verdict.admitted) {
        tokens_ -= 1;
        verdict.suppressed = std::exchange(suppressed_, 0);
    } else {
        ++suppressed_;
    }
    return verdict;
}

LogLimit::Verdict LogLimit::admit() {
    return admit(std::chrono::duration_cast<std::chrono::milliseconds>(
                     std::chrono::steady_clock::now().time_since_epoch())
                     .count());
}

}  // namespace moat::cri
