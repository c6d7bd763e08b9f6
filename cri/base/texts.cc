#include "cri/base/texts.h"

#include <limits.h>

#include <algorithm>

namespace moat::cri {

namespace {

constexpr size_t kLongestName = 253;  // of a DNS subdomain, Kubernetes' longest
constexpr size_t kLongestHostname = 64;
constexpr size_t kLongestQuote = 64;

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool has_control(const std::string& text) {
    return std::any_of(text.begin(), text.end(), is_control);
}

Status check_path(const std::string& text, const std::string& field) {
    const auto wrong = [&](const char* why) {
        return invalid_argument(field + ": " + why + ": " + in_quotes(text));
    };
    if (text.size() >= PATH_MAX) {
        return wrong("longer than a path can be");
    }
    if (has_control(text)) {
        return wrong("holds a control character");
    }
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find('/', at), text.size());
        if (end - at > NAME_MAX) {
            return wrong("a component is longer than a name can be");
        }
        if (text.compare(at, end - at, "..") == 0) {
            return wrong("\"..\" is not allowed");
        }
        at = end + 1;
    }
    return {};
}

}  // namespace

std::string in_quotes(const std::string& text) {
    std::string shown;
    for (const char c : text.substr(0, kLongestQuote)) {
        shown += is_control(c) ? '?' : c;
    }
    if (text.size() > kLongestQuote) {
        // Not in the middle of a character: messages are UTF-8.
        while (!shown.empty() && (static_cast<unsigned char>(shown.back()) & 0xc0) == 0x80) {
            shown.pop_back();
        }
        if (!shown.empty() && static_cast<unsigned char>(shown.back()) >= 0xc0) {
            shown.pop_back();
        }
        return "\"" + shown + "...\" (" + std::to_string(text.size()) + " bytes)";
    }
    return "\"" + shown + "\"";
}

Status check_name(const std::string& text, const std::string& field) {
    if (text.empty()) {
        return invalid_argument(field + ": missing");
    }
    if (text.size() > kLongestName) {
        return invalid_argument(field + ": longer than " + std::to_string(kLongestName) +
                                " bytes: " + in_quotes(text));
    }
    if (has_control(text) || text.find_first_of("/;=") != std::string::npos || text == "." ||
        text == "..") {
        return invalid_argument(field + ": not a name (no \"/\", \";\", \"=\", no control " +
                                "character, not \"..\"): " + in_quotes(text));
    }
    return {};
}

Status check_absolute_path(const std::string& text, const std::string& field) {
    if (text.empty()) {
        return invalid_argument(field + ": missing");
    }
    if (text.front() != '/') {
        return invalid_argument(field + ": not an absolute path: " + in_quotes(text));
    }
    return check_path(text, field);
}

Status check_relative_path(const std::string& text, const std::string& field) {
    if (text.empty()) {
        return invalid_argument(field + ": missing");
    }
    if (text.front() == '/') {
        return invalid_argument(field + ": not a relative path: " + in_quotes(text));
    }
    return check_path(text, field);
}

Status check_hostname(const std::string& text, const std::string& field) {
    if (text.size() > kLongestHostname) {
        return invalid_argument(field + ": longer than " + std::to_string(kLongestHostname) +
                                " bytes: " + in_quotes(text));
    }
    const bool known = std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
    });
    if (!known) {
        return invalid_argument(
            field + ": not of letters, digits, \"-\", \".\" and \"_\": " + in_quotes(text));
    }
    return {};
}

}  // namespace moat::cri
