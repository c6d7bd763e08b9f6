#pragma once

// Handlers about the system, credentials, limits and scheduling.

#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <time.h>

#include <cstdint>
#include <optional>

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class Task;

// sys_info.cc
Status sys_uname(Task& task, UserPtr<utsname> buffer);
Status sys_sysinfo(Task& task, UserPtr<struct sysinfo> info);
Result<int64_t> sys_getrandom(Task& task, GuestAddr buffer, size_t size, uint32_t flags);
Status sys_sethostname(Task& task, GuestAddr name, int32_t length);
Status sys_setdomainname(Task& task, GuestAddr name, int32_t length);
Result<int64_t> sys_syslog(Task& task, int32_t type, GuestAddr buffer, int32_t size);
Status sys_getcpu(Task& task, UserPtr<uint32_t> cpu, UserPtr<uint32_t> node);
Result<int64_t> sys_personality(Task& task, uint32_t persona);

// sys_limits.cc
struct RlimitPair {
    uint64_t soft;
    uint64_t hard;
};
Status sys_getrlimit(Task& task, uint32_t resource, UserPtr<RlimitPair> limit);
Status sys_setrlimit(Task& task, uint32_t resource, UserPtr<const RlimitPair> limit);
Status sys_prlimit64(Task& task, int32_t pid, uint32_t resource,
                     UserPtr<const RlimitPair> new_limit, UserPtr<RlimitPair> old_limit);
Status sys_getrusage(Task& task, int32_t who, UserPtr<struct rusage> usage);
Result<int64_t> sys_times(Task& task, UserPtr<struct tms> times);

// sys_sched.cc
struct SchedParam {
    int32_t priority;
};
/// struct sched_attr, its first and only published version and the utilization fields behind it.
struct SchedAttributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};
Result<int64_t> sys_getpriority(Task& task, int32_t which, int32_t who);
Status sys_setpriority(Task& task, int32_t which, int32_t who, int32_t nice);
Result<int64_t> sys_ioprio_get(Task& task, int32_t which, int32_t who);
Status sys_ioprio_set(Task& task, int32_t which, int32_t who, int32_t priority);
Result<int64_t> sys_sched_yield(Task& task);
Status sys_sched_setparam(Task& task, int32_t pid, UserPtr<const SchedParam> param);
Status sys_sched_getparam(Task& task, int32_t pid, UserPtr<SchedParam> param);
Status sys_sched_setscheduler(Task& task, int32_t pid, int32_t policy,
                              UserPtr<const SchedParam> param);
Result<int64_t> sys_sched_getscheduler(Task& task, int32_t pid);
Result<int64_t> sys_sched_get_priority_max(Task& task, int32_t policy);
Result<int64_t> sys_sched_get_priority_min(Task& task, int32_t policy);
Status sys_sched_rr_get_interval(Task& task, int32_t pid, UserPtr<timespec> interval);
Status sys_sched_setaffinity(Task& task, int32_t pid, uint32_t size, GuestAddr mask);
Result<int64_t> sys_sched_getaffinity(Task& task, int32_t pid, uint32_t size, GuestAddr mask);
Status sys_sched_setattr(Task& task, int32_t pid, UserPtr<const SchedAttributes> attributes,
                         uint32_t flags);
Status sys_sched_getattr(Task& task, int32_t pid, GuestAddr attributes, uint32_t size,
                         uint32_t flags);

// sys_seccomp.cc
Result<int64_t> sys_seccomp(Task& task, uint32_t operation, uint32_t flags, uint64_t argument);
/// prctl(2), PR_SET_SECCOMP.
Result<int64_t> prctl_set_seccomp(Task& task, uint64_t mode, uint64_t program);

// sys_cred.cc
/// struct __user_cap_header_struct.
struct CapabilityHeader {
    uint32_t version;
    int32_t pid;
};
Result<int64_t> sys_getuid(Task& task);
Result<int64_t> sys_getgid(Task& task);
Result<int64_t> sys_geteuid(Task& task);
Result<int64_t> sys_getegid(Task& task);
Status sys_setuid(Task& task, uint32_t uid);
Status sys_setgid(Task& task, uint32_t gid);
Status sys_setreuid(Task& task, uint32_t ruid, uint32_t euid);
Status sys_setregid(Task& task, uint32_t rgid, uint32_t egid);
Status sys_setresuid(Task& task, uint32_t ruid, uint32_t euid, uint32_t suid);
Status sys_setresgid(Task& task, uint32_t rgid, uint32_t egid, uint32_t sgid);
Status sys_getresuid(Task& task, UserPtr<uint32_t> ruid, UserPtr<uint32_t> euid,
                     UserPtr<uint32_t> suid);
Status sys_getresgid(Task& task, UserPtr<uint32_t> rgid, UserPtr<uint32_t> egid,
                     UserPtr<uint32_t> sgid);
Result<int64_t> sys_setfsuid(Task& task, uint32_t uid);
Result<int64_t> sys_setfsgid(Task& task, uint32_t gid);
Result<int64_t> sys_getgroups(Task& task, int32_t size, UserPtr<uint32_t> list);
Status sys_setgroups(Task& task, int32_t size, UserPtr<const uint32_t> list);
Status sys_capget(Task& task, UserPtr<CapabilityHeader> header, GuestAddr data);
Status sys_capset(Task& task, UserPtr<CapabilityHeader> header, GuestAddr data);
/// The part of prctl(2) about credentials; nothing: not one of these options.
std::optional<Result<int64_t>> prctl_credentials(Task& task, int32_t option,
                                                 const uint64_t (&arguments)[4]);

}  // namespace moat::kernel
