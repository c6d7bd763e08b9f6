#pragma once

// linux.seccomp of an OCI configuration, and its way to a program for the sentry.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/error.h"

namespace moat::runtime {

class Fields;

struct SeccompArgument {
    uint32_t index = 0;
    uint64_t value = 0;
    uint64_t value_two = 0;  ///< SCMP_CMP_MASKED_EQ: what the masked argument has to be
    std::string op;          ///< "SCMP_CMP_EQ", ...
};

struct SeccompRule {
    std::vector<std::string> names;
    std::string action;
    std::optional<uint32_t> errno_ret;
    std::vector<SeccompArgument> args;
};

struct SpecSeccomp {
    std::string default_action;  ///< "SCMP_ACT_ERRNO", ...
    std::optional<uint32_t> default_errno_ret;
    std::vector<std::string> flags;
    std::vector<SeccompRule> rules;
};

/// Reads and checks the object; errors name the field. SCMP_ACT_NOTIFY is refused: nobody outside
/// of the sandbox could answer for it.
Result<SpecSeccomp> read_seccomp(const Fields& fields);

/// Classic BPF as control::ContainerPlan::seccomp carries it, for the one architecture that guests
/// have. As with runc: names that libseccomp does not know are left out; conditions on the same
/// argument count as alternatives; calls newer than all that the profile names answer ENOSYS
/// instead of a forbidding default action, so that libraries try an older one.
Result<std::vector<uint64_t>> compile_seccomp(const SpecSeccomp& seccomp);

/// Names for `features`.
const std::vector<std::string>& seccomp_action_names();
const std::vector<std::string>& seccomp_operator_names();

}  // namespace moat::runtime
