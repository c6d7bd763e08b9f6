#pragma once

// System calls as text in the sentry's log, from the table's own formats.
//
// A format is a list of kinds, one an argument: int, uint, fd, dirfd, pid, ptr, size, off, hex,
// mode, path, string, buf, open_flags, signal, prot, map_flags, clone_flags, at_flags, timespec,
// sigset, words, rlimit_resource. An unknown kind is printed in hexadecimal.

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "kernel/base/result.h"

namespace moat::kernel {

class Task;
struct SyscallEntry;

namespace internal {
extern std::atomic<bool> strace_on;
}

/// Off until the plan asks for it; may be switched at any time.
inline bool strace_enabled() { return internal::strace_on.load(std::memory_order_relaxed); }
void set_strace(bool on);

/// A call has been taken: prints those that do not come back, or whose arguments are gone by then.
/// `entry` may be null. Reads guest memory: no lock may be held.
void strace_enter(Task& task, const SyscallEntry* entry);
/// The call in task.arguments() ends with `result`: prints "[tid] name(args) = result".
void strace_exit(Task& task, const Result<int64_t>& result);

/// "name(args)" of the call in task.arguments().
std::string describe_call(Task& task, const SyscallEntry* entry);
/// "= 3", "= -1 ENOENT (No such file or directory)", "= ? ERESTARTSYS".
std::string describe_result(const Result<int64_t>& result);

/// How often each unsupported call or branch was met, by name (kernel/syscalls/syscall.h).
std::map<std::string, uint64_t> unsupported_counts();

}  // namespace moat::kernel
