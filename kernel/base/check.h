#pragma once

namespace moat {

/// Prints the place and the condition, then aborts. Async-signal-safe.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace moat

/// For our own invariants; stays on in release. Input from a guest, a peer or a file is never
/// CHECKed: it gets an error.
#define CHECK(condition)                                          \
    do {                                                          \
        if (!(condition)) [[unlikely]]                            \
            ::moat::check_failed(#condition, __FILE__, __LINE__); \
    } while (0)
