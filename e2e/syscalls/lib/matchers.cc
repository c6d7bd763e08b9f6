#include "e2e/syscalls/lib/matchers.h"

#include <algorithm>
#include <cstring>

namespace guest {

std::string errno_name(int error) {
    const char* name = strerrorname_np(error);
    return name != nullptr ? name : "errno " + std::to_string(error);
}

std::string Outcome::describe() const {
    if (failed()) {
        return "failed with " + errno_name(error);
    }
    std::ostringstream out;
    out << "returned " << value;
    if (value > 0xffff || value < -1) {
        out << " (0x" << std::hex << value << ")";
    }
    return out.str();
}

bool Matcher::matches(const Outcome& got) const {
    switch (kind_) {
        case Kind::kSucceeds:
            return !got.failed();
        case Kind::kSucceedsWith:
            return !got.failed() && got.value == value_;
        case Kind::kFailsWith:
            return got.failed() &&
                   std::find(errors_.begin(), errors_.end(), got.error) != errors_.end();
    }
    return false;
}

std::string Matcher::describe() const {
    switch (kind_) {
        case Kind::kSucceeds:
            return "success";
        case Kind::kSucceedsWith:
            return "the value " + std::to_string(value_);
        case Kind::kFailsWith:
            break;
    }
    std::string text;
    for (const int error : errors_) {
        text += (text.empty() ? "" : " or ") + errno_name(error);
    }
    return text;
}

std::string describe_mismatch(const char* expression, const Outcome& got, const Matcher& expected) {
    return std::string(expression) + ": " + got.describe() + ", expected: " + expected.describe();
}

Matcher succeeds() { return {Matcher::Kind::kSucceeds, 0, {}}; }
Matcher succeeds_with(long value) { return {Matcher::Kind::kSucceedsWith, value, {}}; }
Matcher fails_with(int error) { return {Matcher::Kind::kFailsWith, 0, {error}}; }
Matcher fails_with_any(std::initializer_list<int> errors) {
    return {Matcher::Kind::kFailsWith, 0, errors};
}

}  // namespace guest
