// credentials(7), capabilities(7). Linux: kernel/sys.c, kernel/groups.c, kernel/capability.c,
// security/commoncap.c.

#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/securebits.h>

#include <algorithm>

#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kUnchanged = UINT32_MAX;  // also never a valid id
constexpr int32_t kMaxGroups = 65536;
constexpr uint64_t kAllCapabilities = (2ull << CAP_LAST_CAP) - 1;
/// Capabilities that the fsuid has to do with (linux/capability.h: CAP_FS_SET).
constexpr uint64_t kFileCapabilities = 1ull << CAP_CHOWN | 1ull << CAP_MKNOD |
                                       1ull << CAP_DAC_OVERRIDE | 1ull << CAP_DAC_READ_SEARCH |
                                       1ull << CAP_FOWNER | 1ull << CAP_FSETID |
                                       1ull << CAP_LINUX_IMMUTABLE | 1ull << CAP_MAC_OVERRIDE;

/// What a change of user ids does to capabilities (Linux: cap_emulate_setxuid).
void fix_capabilities(const Credentials& old, Credentials& next) {
    if ((old.securebits & SECBIT_NO_SETUID_FIXUP) != 0) {
        return;
    }
    const bool was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
    if (was_root && next.uid != 0 && next.euid != 0 && next.suid != 0) {
        if ((old.securebits & SECBIT_KEEP_CAPS) == 0) {
            next.permitted = 0;
            next.effective = 0;
        }
        next.ambient = 0;
    }
    if (old.euid == 0 && next.euid != 0) {
        next.effective = 0;
    }
    if (old.euid != 0 && next.euid == 0) {
        next.effective = next.permitted;
    }
}

bool one_of_uids(const Credentials& c, uint32_t id) {
    return id == c.uid || id == c.euid || id == c.suid;
}
bool one_of_gids(const Credentials& c, uint32_t id) {
    return id == c.gid || id == c.egid || id == c.sgid;
}

/// EINVAL for an id that the container's user namespace does not map (setresuid(2)).
Status check_uids(Task& task, std::initializer_list<uint32_t> uids) {
    for (const uint32_t uid : uids) {
        if (uid != kUnchanged && !task.credentials()->has_uid(uid)) {
            return Errno(EINVAL);
        }
    }
    return {};
}
Status check_gids(Task& task, std::initializer_list<uint32_t> gids) {
    for (const uint32_t gid : gids) {
        if (gid != kUnchanged && !task.credentials()->has_gid(gid)) {
            return Errno(EINVAL);
        }
    }
    return {};
}

}  // namespace

Result<int64_t> sys_getuid(Task& task) { return task.credentials()->uid; }
Result<int64_t> sys_getgid(Task& task) { return task.credentials()->gid; }
Result<int64_t> sys_geteuid(Task& task) { return task.credentials()->euid; }
Result<int64_t> sys_getegid(Task& task) { return task.credentials()->egid; }

Status sys_setuid(Task& task, uint32_t uid) {
    if (uid == kUnchanged) {
        return Errno(EINVAL);
    }
    TRY(check_uids(task, {uid}));
    const auto old = task.credentials();
    auto next = old->clone();
    if (old->has_capability(CAP_SETUID)) {
        next->uid = next->suid = uid;
    } else if (uid != old->uid && uid != old->suid) {
        return Errno(EPERM);
    }
    next->euid = next->fsuid = uid;
    fix_capabilities(*old, *next);
    task.set_credentials(std::move(next));
    return {};
}

Status sys_setgid(Task& task, uint32_t gid) {
    if (gid == kUnchanged) {
        return Errno(EINVAL);
    }
    TRY(check_gids(task, {gid}));
    const auto old = task.credentials();
    auto next = old->clone();
    if (old->has_capability(CAP_SETGID)) {
        next->gid = next->sgid = gid;
    } else if (gid != old->gid && gid != old->sgid) {
        return Errno(EPERM);
    }
    next->egid = next->fsgid = gid;
    task.set_credentials(std::move(next));
    return {};
}

Status sys_setreuid(Task& task, uint32_t ruid, uint32_t euid) {
    TRY(check_uids(task, {ruid, euid}));
    const auto old = task.credentials();
    const bool privileged = old->has_capability(CAP_SETUID);
    auto next = old->clone();
    if (ruid != kUnchanged) {
        if (!privileged && ruid != old->uid && ruid != old->euid) {
            return Errno(EPERM);
        }
        next->uid = ruid;
    }
    if (euid != kUnchanged) {
        if (!privileged && !one_of_uids(*old, euid)) {
            return Errno(EPERM);
        }
        next->euid = euid;
    }
    if (ruid != kUnchanged || (euid != kUnchanged && euid != old->uid)) {
        next->suid = next->euid;
    }
    next->fsuid = next->euid;
    fix_capabilities(*old, *next);
    task.set_credentials(std::move(next));
    return {};
}

Status sys_setregid(Task& task, uint32_t rgid, uint32_t egid) {
    TRY(check_gids(task, {rgid, egid}));
    const auto old = task.credentials();
    const bool privileged = old->has_capability(CAP_SETGID);
    auto next = old->clone();
    if (rgid != kUnchanged) {
        if (!privileged && rgid != old->gid && rgid != old->egid) {
            return Errno(EPERM);
        }
        next->gid = rgid;
    }
    if (egid != kUnchanged) {
        if (!privileged && !one_of_gids(*old, egid)) {
            return Errno(EPERM);
        }
        next->egid = egid;
    }
    if (rgid != kUnchanged || (egid != kUnchanged && egid != old->gid)) {
        next->sgid = next->egid;
    }
    next->fsgid = next->egid;
    task.set_credentials(std::move(next));
    return {};
}

Status sys_setresuid(Task& task, uint32_t ruid, uint32_t euid, uint32_t suid) {
    TRY(check_uids(task, {ruid, euid, suid}));
    const auto old = task.credentials();
    if (!old->has_capability(CAP_SETUID)) {
        for (const uint32_t id : {ruid, euid, suid}) {
            if (id != kUnchanged && !one_of_uids(*old, id)) {
                return Errno(EPERM);
            }
        }
    }
    auto next = old->clone();
    next->uid = ruid != kUnchanged ? ruid : old->uid;
    next->euid = euid != kUnchanged ? euid : old->euid;
    next->suid = suid != kUnchanged ? suid : old->suid;
    next->fsuid = next->euid;
    fix_capabilities(*old, *next);
    task.set_credentials(std::move(next));
    return {};
}

Status sys_setresgid(Task& task, uint32_t rgid, uint32_t egid, uint32_t sgid) {
    TRY(check_gids(task, {rgid, egid, sgid}));
    const auto old = task.credentials();
    if (!old->has_capability(CAP_SETGID)) {
        for (const uint32_t id : {rgid, egid, sgid}) {
            if (id != kUnchanged && !one_of_gids(*old, id)) {
                return Errno(EPERM);
            }
        }
    }
    auto next = old->clone();
    next->gid = rgid != kUnchanged ? rgid : old->gid;
    next->egid = egid != kUnchanged ? egid : old->egid;
    next->sgid = sgid != kUnchanged ? sgid : old->sgid;
    next->fsgid = next->egid;
    task.set_credentials(std::move(next));
    return {};
}

Status sys_getresuid(Task& task, UserPtr<uint32_t> ruid, UserPtr<uint32_t> euid,
                     UserPtr<uint32_t> suid) {
    const auto c = task.credentials();
    TRY(task.copy_out(ruid, c->uid));
    TRY(task.copy_out(euid, c->euid));
    return task.copy_out(suid, c->suid);
}

Status sys_getresgid(Task& task, UserPtr<uint32_t> rgid, UserPtr<uint32_t> egid,
                     UserPtr<uint32_t> sgid) {
    const auto c = task.credentials();
    TRY(task.copy_out(rgid, c->gid));
    TRY(task.copy_out(egid, c->egid));
    return task.copy_out(sgid, c->sgid);
}

/// Tells the old id whether it changed anything or not.
Result<int64_t> sys_setfsuid(Task& task, uint32_t uid) {
    const auto old = task.credentials();
    if (uid == kUnchanged || uid == old->fsuid || !task.credentials()->has_uid(uid) ||
        (!one_of_uids(*old, uid) && !old->has_capability(CAP_SETUID))) {
        return old->fsuid;
    }
    auto next = old->clone();
    next->fsuid = uid;
    if ((old->securebits & SECBIT_NO_SETUID_FIXUP) == 0) {
        if (old->fsuid == 0 && uid != 0) {
            next->effective &= ~kFileCapabilities;
        } else if (old->fsuid != 0 && uid == 0) {
            next->effective |= next->permitted & kFileCapabilities;
        }
    }
    const uint32_t was = old->fsuid;
    task.set_credentials(std::move(next));
    return was;
}

Result<int64_t> sys_setfsgid(Task& task, uint32_t gid) {
    const auto old = task.credentials();
    if (gid == kUnchanged || gid == old->fsgid || !task.credentials()->has_gid(gid) ||
        (!one_of_gids(*old, gid) && !old->has_capability(CAP_SETGID))) {
        return old->fsgid;
    }
    auto next = old->clone();
    next->fsgid = gid;
    const uint32_t was = old->fsgid;
    task.set_credentials(std::move(next));
    return was;
}

Result<int64_t> sys_getgroups(Task& task, int32_t size, UserPtr<uint32_t> list) {
    const auto c = task.credentials();
    const auto count = static_cast<int32_t>(c->groups.size());
    if (size < 0 || (size > 0 && size < count)) {
        return Errno(EINVAL);
    }
    if (size > 0) {
        TRY(task.copy_out_bytes(list.address(), c->groups.data(),
                                c->groups.size() * sizeof(uint32_t)));
    }
    return count;
}

Status sys_setgroups(Task& task, int32_t size, UserPtr<const uint32_t> list) {
    const auto old = task.credentials();
    if (!old->has_capability(CAP_SETGID)) {
        return Errno(EPERM);
    }
    if (size < 0 || size > kMaxGroups) {
        return Errno(EINVAL);
    }
    auto groups = TRY(task.copy_in_array(list, static_cast<size_t>(size)));
    for (const uint32_t gid : groups) {
        if (gid == kUnchanged || !task.credentials()->has_gid(gid)) {
            return Errno(EINVAL);
        }
    }
    std::sort(groups.begin(), groups.end());
    auto next = old->clone();
    next->groups = std::move(groups);
    task.set_credentials(std::move(next));
    return {};
}

// ---------------------------------------------------------------- capget, capset

namespace {

struct CapabilityData {
    uint32_t effective;
    uint32_t permitted;
    uint32_t inheritable;
};

/// How many CapabilityData follow the header. An unknown version is answered with ours in its
/// place, and EINVAL.
Result<size_t> data_count(Task& task, UserPtr<CapabilityHeader> header, uint32_t version) {
    switch (version) {
        case _LINUX_CAPABILITY_VERSION_1:
            return size_t{1};
        case _LINUX_CAPABILITY_VERSION_2:
        case _LINUX_CAPABILITY_VERSION_3:
            return size_t{2};
        default:
            TRY(task.copy_out(header.cast<uint32_t>(), uint32_t{_LINUX_CAPABILITY_VERSION_3}));
            return Errno(EINVAL);
    }
}

}  // namespace

Status sys_capget(Task& task, UserPtr<CapabilityHeader> header, GuestAddr data) {
    const CapabilityHeader h = TRY(task.copy_in(header));
    const auto count = data_count(task, header, h.version);
    if (!count.ok()) {
        // Asking for the version with no data is how libraries probe.
        return count.error() == EINVAL && to_integer(data) == 0 ? Status() : count.error();
    }
    if (h.pid < 0) {
        return Errno(EINVAL);
    }
    CredentialsRef of = task.credentials();
    if (h.pid != 0 && h.pid != task.tid()) {
        const auto target = task.pid_namespace().find_task(h.pid);
        if (!target) {
            return Errno(ESRCH);
        }
        of = target->credentials();
    }
    CapabilityData out[2];
    for (size_t i = 0; i < 2; i++) {
        out[i] = {static_cast<uint32_t>(of->effective >> 32 * i),
                  static_cast<uint32_t>(of->permitted >> 32 * i),
                  static_cast<uint32_t>(of->inheritable >> 32 * i)};
    }
    return task.copy_out_bytes(data, out, *count * sizeof *out);
}

Status sys_capset(Task& task, UserPtr<CapabilityHeader> header, GuestAddr data) {
    const CapabilityHeader h = TRY(task.copy_in(header));
    const size_t count = TRY(data_count(task, header, h.version));
    if (h.pid != 0 && h.pid != task.tid()) {
        return Errno(EPERM);
    }
    CapabilityData in[2] = {};
    TRY(task.copy_in_bytes(in, data, count * sizeof *in));
    auto join = [](uint32_t low, uint32_t high) {
        return (low | static_cast<uint64_t>(high) << 32) & kAllCapabilities;
    };
    const auto old = task.credentials();
    auto next = old->clone();
    next->effective = join(in[0].effective, in[1].effective);
    next->permitted = join(in[0].permitted, in[1].permitted);
    next->inheritable = join(in[0].inheritable, in[1].inheritable);
    const uint64_t may_inherit =
        old->has_capability(CAP_SETPCAP) ? ~0ull : old->inheritable | old->permitted;
    if ((next->inheritable & ~may_inherit) != 0 ||
        (next->inheritable & ~(old->inheritable | old->bounding)) != 0 ||
        (next->permitted & ~old->permitted) != 0 || (next->effective & ~next->permitted) != 0) {
        return Errno(EPERM);
    }
    next->ambient &= next->permitted & next->inheritable;
    task.set_credentials(std::move(next));
    return {};
}

// ---------------------------------------------------------------- prctl(2)

namespace {

Result<int64_t> change_ambient(Task& task, const uint64_t (&a)[4]) {
    const auto old = task.credentials();
    auto next = old->clone();
    if (a[2] != 0 || a[3] != 0) {
        return Errno(EINVAL);
    }
    if (a[0] == PR_CAP_AMBIENT_CLEAR_ALL) {
        if (a[1] != 0) {
            return Errno(EINVAL);
        }
        next->ambient = 0;
        task.set_credentials(std::move(next));
        return 0;
    }
    if (a[1] > CAP_LAST_CAP) {
        return Errno(EINVAL);
    }
    const uint64_t bit = 1ull << a[1];
    switch (a[0]) {
        case PR_CAP_AMBIENT_IS_SET:
            return (old->ambient & bit) != 0 ? 1 : 0;
        case PR_CAP_AMBIENT_RAISE:
            if ((old->permitted & old->inheritable & bit) == 0 ||
                (old->securebits & SECBIT_NO_CAP_AMBIENT_RAISE) != 0) {
                return Errno(EPERM);
            }
            next->ambient |= bit;
            break;
        case PR_CAP_AMBIENT_LOWER:
            next->ambient &= ~bit;
            break;
        default:
            return Errno(EINVAL);
    }
    task.set_credentials(std::move(next));
    return 0;
}

Result<int64_t> change_securebits(Task& task, uint64_t wanted) {
    const auto old = task.credentials();
    constexpr uint64_t kLocks = SECURE_ALL_LOCKS;
    const uint64_t locked_bits = (old->securebits & kLocks) >> 1;
    if ((locked_bits & (old->securebits ^ wanted)) != 0 ||  // changes what is locked
        (old->securebits & kLocks & ~wanted) != 0 ||        // opens a lock
        (wanted & ~(kLocks | SECURE_ALL_BITS)) != 0 || !old->has_capability(CAP_SETPCAP)) {
        return Errno(EPERM);
    }
    auto next = old->clone();
    next->securebits = static_cast<uint32_t>(wanted);
    task.set_credentials(std::move(next));
    return 0;
}

}  // namespace

std::optional<Result<int64_t>> prctl_credentials(Task& task, int32_t option,
                                                 const uint64_t (&a)[4]) {
    const auto old = task.credentials();
    switch (option) {
        case PR_CAPBSET_READ:
            if (a[0] > CAP_LAST_CAP) {
                return Errno(EINVAL);
            }
            return Result<int64_t>((old->bounding >> a[0] & 1) != 0 ? 1 : 0);
        case PR_CAPBSET_DROP: {
            if (!old->has_capability(CAP_SETPCAP)) {
                return Errno(EPERM);
            }
            if (a[0] > CAP_LAST_CAP) {
                return Errno(EINVAL);
            }
            auto next = old->clone();
            next->bounding &= ~(1ull << a[0]);
            task.set_credentials(std::move(next));
            return Result<int64_t>(0);
        }
        case PR_GET_KEEPCAPS:
            return Result<int64_t>((old->securebits & SECBIT_KEEP_CAPS) != 0 ? 1 : 0);
        case PR_SET_KEEPCAPS: {
            if (a[0] > 1) {
                return Errno(EINVAL);
            }
            if ((old->securebits & SECBIT_KEEP_CAPS_LOCKED) != 0) {
                return Errno(EPERM);
            }
            auto next = old->clone();
            next->securebits &= ~static_cast<uint32_t>(SECBIT_KEEP_CAPS);
            next->securebits |= a[0] != 0 ? SECBIT_KEEP_CAPS : 0;
            task.set_credentials(std::move(next));
            return Result<int64_t>(0);
        }
        case PR_GET_SECUREBITS:
            return Result<int64_t>(old->securebits);
        case PR_SET_SECUREBITS:
            return change_securebits(task, a[0]);
        case PR_GET_NO_NEW_PRIVS:
            if (a[0] != 0 || a[1] != 0 || a[2] != 0 || a[3] != 0) {
                return Errno(EINVAL);
            }
            return Result<int64_t>(old->no_new_privs ? 1 : 0);
        case PR_SET_NO_NEW_PRIVS: {
            if (a[0] != 1 || a[1] != 0 || a[2] != 0 || a[3] != 0) {
                return Errno(EINVAL);
            }
            auto next = old->clone();
            next->no_new_privs = true;
            task.set_credentials(std::move(next));
            return Result<int64_t>(0);
        }
        case PR_CAP_AMBIENT:
            return change_ambient(task, a);
        default:
            return std::nullopt;
    }
}

}  // namespace moat::kernel
