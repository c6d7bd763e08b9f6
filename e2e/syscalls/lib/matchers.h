#pragma once

#include <cerrno>
#include <initializer_list>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace guest {

/// The name of an errno value ("EBADF"); a bare number when libc does not know it.
std::string errno_name(int error);

/// What one call answered: its value, and errno as it stood right after the call.
/// A call has failed when its value is -1 (for pointers: MAP_FAILED, the same bits).
struct Outcome {
    long value;
    int error;

    bool failed() const { return value == -1; }
    std::string describe() const;
};

/// Captures value and errno. Must be the first thing that happens after the call.
template <typename T>
Outcome outcome(T value) {
    const int error = errno;
    if constexpr (std::is_pointer_v<T>) {
        return {reinterpret_cast<long>(value), error};
    } else {
        return {static_cast<long>(value), error};
    }
}

/// What CHECK_THAT compares an outcome with.
class Matcher {
  public:
    enum class Kind { kSucceeds, kSucceedsWith, kFailsWith };

    Matcher(Kind kind, long value, std::vector<int> errors)
        : kind_(kind), value_(value), errors_(std::move(errors)) {}

    bool matches(const Outcome& got) const;
    /// The expectation in words, for the failure message.
    std::string describe() const;

  private:
    Kind kind_;
    long value_;
    std::vector<int> errors_;
};

/// Any value but -1.
Matcher succeeds();
/// Exactly this value (a byte count, a descriptor number, ...).
Matcher succeeds_with(long value);
/// -1 with this errno.
Matcher fails_with(int error);
/// -1 with one of these errnos: only where Linux itself differs between file systems or versions.
Matcher fails_with_any(std::initializer_list<int> errors);

/// "read(...): returned 3, expected: EBADF"
std::string describe_mismatch(const char* expression, const Outcome& got, const Matcher& expected);

/// Reports a failure from a forked child (which must not touch doctest) and ends it.
[[noreturn]] void child_failed(const char* file, int line, const std::string& text);

}  // namespace guest

#define GUEST_THAT_IMPL(expr, matcher, on_failure)                                             \
    do {                                                                                       \
        errno = 0;                                                                             \
        const ::guest::Outcome guest_outcome_ = ::guest::outcome((expr));                      \
        const ::guest::Matcher guest_matcher_ = (matcher);                                     \
        on_failure(guest_matcher_.matches(guest_outcome_),                                     \
                   ::guest::describe_mismatch(#expr, guest_outcome_, guest_matcher_).c_str()); \
    } while (false)

#define GUEST_CHECK_IMPL(ok, text)                                          \
    do {                                                                    \
        if (ok) {                                                           \
            CHECK(true);                                                    \
        } else {                                                            \
            ADD_FAIL_CHECK_AT(__FILE__, __LINE__, ::doctest::String(text)); \
        }                                                                   \
    } while (false)
#define GUEST_REQUIRE_IMPL(ok, text)                                  \
    do {                                                              \
        if (ok) {                                                     \
            CHECK(true);                                              \
        } else {                                                      \
            ADD_FAIL_AT(__FILE__, __LINE__, ::doctest::String(text)); \
        }                                                             \
    } while (false)
#define GUEST_CHILD_IMPL(ok, text)                             \
    do {                                                       \
        if (!(ok)) {                                           \
            ::guest::child_failed(__FILE__, __LINE__, (text)); \
        }                                                      \
    } while (false)

/// CHECK_THAT(read(fd, buf, n), fails_with(EBADF)): evaluates the call once.
#define CHECK_THAT(expr, matcher) GUEST_THAT_IMPL(expr, matcher, GUEST_CHECK_IMPL)
#define REQUIRE_THAT(expr, matcher) GUEST_THAT_IMPL(expr, matcher, GUEST_REQUIRE_IMPL)
/// The same in a forked child: a failure is printed and ends the child with kChildFailed.
#define CHILD_THAT(expr, matcher) GUEST_THAT_IMPL(expr, matcher, GUEST_CHILD_IMPL)
#define CHILD_CHECK(condition) GUEST_CHILD_IMPL((condition), "not true: " #condition)
