#include "runtime/spec/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "kernel/base/scoped_fd.h"
#include "runtime/spec/fields.h"

namespace moat::runtime {

namespace {

constexpr uint32_t kLargestErrno = 4095;
constexpr size_t kLargestProfile = 16384;  ///< rules times names; runc's limit is memory

/// The action's number without its data; nothing for a name that is none.
std::optional<uint32_t> action_number(const std::string& name) {
    static const std::pair<const char*, uint32_t> kActions[] = {
        {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
        {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
        {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
        {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
        {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0)},
        {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0)},
        {"SCMP_ACT_LOG", SCMP_ACT_LOG},
        {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW}};
    for (const auto& [known, number] : kActions) {
        if (name == known) {
            return number;
        }
    }
    return std::nullopt;
}

/// With the errno that ERRNO and TRACE carry: EPERM unless it is said.
uint32_t action_with_data(const std::string& name, std::optional<uint32_t> errno_ret) {
    const uint32_t action = action_number(name).value_or(SCMP_ACT_KILL_PROCESS);
    if (action == SCMP_ACT_ERRNO(0)) {
        return SCMP_ACT_ERRNO(errno_ret.value_or(EPERM));
    }
    return action == SCMP_ACT_TRACE(0) ? SCMP_ACT_TRACE(errno_ret.value_or(EPERM)) : action;
}

std::optional<scmp_compare> compare_number(const std::string& name) {
    static const std::pair<const char*, scmp_compare> kOperators[] = {
        {"SCMP_CMP_NE", SCMP_CMP_NE},
        {"SCMP_CMP_LT", SCMP_CMP_LT},
        {"SCMP_CMP_LE", SCMP_CMP_LE},
        {"SCMP_CMP_EQ", SCMP_CMP_EQ},
        {"SCMP_CMP_GE", SCMP_CMP_GE},
        {"SCMP_CMP_GT", SCMP_CMP_GT},
        {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
    for (const auto& [known, number] : kOperators) {
        if (name == known) {
            return number;
        }
    }
    return std::nullopt;
}

Status check_action(const Fields& fields, const char* key, const std::string& action,
                    const char* errno_key, std::optional<uint32_t> errno_ret) {
    if (action == "SCMP_ACT_NOTIFY") {
        return fields.error(key, "an action other than SCMP_ACT_NOTIFY, which a sandbox has not",
                            action);
    }
    const auto number = action_number(action);
    if (!number) {
        return fields.error(key, "an action such as SCMP_ACT_ERRNO", action);
    }
    if (errno_ret && *number != SCMP_ACT_ERRNO(0) && *number != SCMP_ACT_TRACE(0)) {
        return fields.error(errno_key, "nothing with an action other than ERRNO and TRACE",
                            *errno_ret);
    }
    if (errno_ret && *errno_ret > kLargestErrno) {
        return fields.error(errno_key, "at most 4095", *errno_ret);
    }
    return {};
}

Status read_rule(const Fields& r, SeccompRule& rule) {
    TRY(r.read("names", rule.names));
    if (rule.names.empty()) {
        return r.error("names", "at least one system call");
    }
    TRY(r.read("action", rule.action));
    TRY(r.read("errnoRet", rule.errno_ret));
    TRY(check_action(r, "action", rule.action, "errnoRet", rule.errno_ret));
    return r.objects("args", [&](const Fields& a) -> Status {
        SeccompArgument argument;
        TRY(a.read("index", argument.index));
        TRY(a.read("value", argument.value));
        TRY(a.read("valueTwo", argument.value_two));
        TRY(a.read("op", argument.op));
        if (argument.index > 5) {
            return a.error("index", "0 to 5", argument.index);
        }
        if (!compare_number(argument.op)) {
            return a.error("op", "a comparison such as SCMP_CMP_EQ", argument.op);
        }
        rule.args.push_back(std::move(argument));
        return {};
    });
}

Status failed(const std::string& step, int error) {
    return Error(-error, "linux.seccomp: " + step + ": " + strerror(-error));
}

scmp_arg_cmp comparison(const SeccompArgument& a) {
    return {a.index, *compare_number(a.op), a.value, a.value_two};
}

Status add_rule(scmp_filter_ctx context, const SeccompRule& rule, const std::string& name,
                int number, uint32_t action) {
    std::array<int, 6> uses{};
    std::vector<scmp_arg_cmp> all;
    for (const SeccompArgument& argument : rule.args) {
        uses[argument.index]++;
        all.push_back(comparison(argument));
    }
    const bool alternatives = std::any_of(uses.begin(), uses.end(), [](int n) { return n > 1; });
    std::vector<std::vector<scmp_arg_cmp>> rules;
    if (alternatives) {
        for (const scmp_arg_cmp& one : all) {
            rules.push_back({one});
        }
    } else {
        rules.push_back(std::move(all));
    }
    for (const auto& conditions : rules) {
        const int error = seccomp_rule_add_array(
            context, action, number, static_cast<unsigned>(conditions.size()), conditions.data());
        if (error != 0) {
            return failed("rule for " + name, error);
        }
    }
    return {};
}

/// What libseccomp writes out.
Result<std::vector<sock_filter>> export_program(scmp_filter_ctx context) {
    const ScopedFd file(memfd_create("seccomp", MFD_CLOEXEC));
    if (!file) {
        return Error::from_errno(errno, "linux.seccomp: memfd_create");
    }
    if (const int error = seccomp_export_bpf(context, file.get()); error != 0) {
        return failed("export", error).error();
    }
    const off_t size = lseek(file.get(), 0, SEEK_END);
    if (size <= 0 || size % sizeof(sock_filter) != 0) {
        return Error(EINVAL, "linux.seccomp: libseccomp wrote no program");
    }
    std::vector<sock_filter> program(static_cast<size_t>(size) / sizeof(sock_filter));
    if (pread(file.get(), program.data(), static_cast<size_t>(size), 0) != size) {
        return Error::from_errno(errno, "linux.seccomp: read the program");
    }
    return program;
}

}  // namespace

Result<SpecSeccomp> read_seccomp(const Fields& fields) {
    SpecSeccomp out;
    TRY(fields.read("defaultAction", out.default_action));
    TRY(fields.read("defaultErrnoRet", out.default_errno_ret));
    TRY(check_action(fields, "defaultAction", out.default_action, "defaultErrnoRet",
                     out.default_errno_ret));
    TRY(fields.read("flags", out.flags));
    for (const std::string& flag : out.flags) {
        // Of these only LOG means something where there is one thread yet and no speculation.
        if (flag != "SECCOMP_FILTER_FLAG_TSYNC" && flag != "SECCOMP_FILTER_FLAG_LOG" &&
            flag != "SECCOMP_FILTER_FLAG_SPEC_ALLOW") {
            return fields.error("flags", "SECCOMP_FILTER_FLAG_TSYNC, _LOG or _SPEC_ALLOW", flag);
        }
    }
    std::string listener;
    TRY(fields.read("listenerPath", listener));
    if (!listener.empty()) {
        return fields.error("listenerPath", "nothing: a sandbox has no user notification",
                            listener);
    }
    std::vector<std::string> architectures;
    TRY(fields.read("architectures", architectures));
    for (const std::string& name : architectures) {
        if (name.rfind("SCMP_ARCH_", 0) != 0) {
            return fields.error("architectures", "names that begin with SCMP_ARCH_", name);
        }
    }
    size_t names = 0;
    TRY(fields.objects("syscalls", [&](const Fields& r) -> Status {
        SeccompRule rule;
        TRY(read_rule(r, rule));
        names += rule.names.size() * std::max<size_t>(rule.args.size(), 1);
        if (names > kLargestProfile) {
            return r.error("names", "at most 16384 rules in all");
        }
        out.rules.push_back(std::move(rule));
        return {};
    }));
    return out;
}

Result<std::vector<uint64_t>> compile_seccomp(const SpecSeccomp& seccomp) {
    const uint32_t default_action =
        action_with_data(seccomp.default_action, seccomp.default_errno_ret);
    scmp_filter_ctx context = seccomp_init(default_action);
    if (context == nullptr) {
        return Error(EINVAL, "linux.seccomp: libseccomp refuses the default action " +
                                 seccomp.default_action);
    }
    const Cleanup release([&] { seccomp_release(context); });
    // Older versions of the library fail with an empty tree (libseccomp issue 370).
    if (seccomp.rules.size() > 32 ||
        std::any_of(seccomp.rules.begin(), seccomp.rules.end(),
                    [](const SeccompRule& r) { return r.names.size() > 32; })) {
        (void)seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    }
    int newest = -1;
    for (const SeccompRule& rule : seccomp.rules) {
        const uint32_t action = action_with_data(rule.action, rule.errno_ret);
        for (const std::string& name : rule.names) {
            const int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name.c_str());
            if (number < 0) {
                // Unknown, or a call of other architectures only.
                LOG(kDebug, "spec", "linux.seccomp: no call %s here", name.c_str());
                continue;
            }
            newest = std::max(newest, number);
            if (action != default_action) {
                TRY(add_rule(context, rule, name, number, action));
            }
        }
    }
    std::vector<sock_filter> program = TRY(export_program(context));
    const bool forbids = default_action != SCMP_ACT_ALLOW && default_action != SCMP_ACT_LOG;
    if (forbids && newest >= 0) {
        const sock_filter unknown[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(newest), 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)};
        program.insert(program.begin(), std::begin(unknown), std::end(unknown));
    }
    if (program.size() > BPF_MAXINSNS) {
        return Error(E2BIG, "linux.seccomp: " + std::to_string(program.size()) +
                                " instructions, at most " + std::to_string(BPF_MAXINSNS));
    }
    std::vector<uint64_t> packed;
    for (const sock_filter& i : program) {
        packed.push_back(static_cast<uint64_t>(i.code) << 48 | static_cast<uint64_t>(i.jt) << 40 |
                         static_cast<uint64_t>(i.jf) << 32 | i.k);
    }
    return packed;
}

const std::vector<std::string>& seccomp_action_names() {
    static const std::vector<std::string> names = {
        "SCMP_ACT_ALLOW",       "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",   "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"};
    return names;
}

const std::vector<std::string>& seccomp_operator_names() {
    static const std::vector<std::string> names = {
        "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",       "SCMP_CMP_LE",
        "SCMP_CMP_LT", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"};
    return names;
}

}  // namespace moat::runtime
