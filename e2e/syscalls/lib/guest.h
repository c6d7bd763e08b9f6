#pragma once

// Everything a guest test needs. The same binary runs natively and inside the sentry; nothing but
// the binary itself is in the sentry's root.

#include <string>

#include "e2e/syscalls/lib/fd.h"
#include "e2e/syscalls/lib/matchers.h"
#include "e2e/syscalls/lib/memory.h"
#include "e2e/syscalls/lib/process.h"

namespace guest {

/// True when MOAT_GUEST=1 or --moat-guest says that the kernel below is moat's sentry: allows what
/// would be rude to a real machine.
bool running_in_sentry();

/// Ends the case (a doctest failure that throws) or, in a forked child, the child.
[[noreturn]] void fatal(const std::string& text);
/// Called by Child in the new process: from now on fatal() ends the process.
void set_in_child();
bool in_child_process();

/// Prints that the running case could not be judged here. The caller then returns.
void report_skip(const std::string& reason);

}  // namespace guest

/// Leaves the case with a printed reason unless the machine has what it needs.
#define SKIP_UNLESS(condition, reason)    \
    do {                                  \
        if (!(condition)) {               \
            ::guest::report_skip(reason); \
            return;                       \
        }                                 \
    } while (false)
