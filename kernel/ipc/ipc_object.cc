#include "kernel/ipc/ipc_object.h"

#include <linux/capability.h>

#include <atomic>

#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

std::atomic<size_t> charged{0};

}  // namespace

IpcActor IpcActor::of(const ThreadGroup& group) { return {group.pid(), &group.pid_namespace()}; }

IpcActor IpcActor::of(const Task& task) { return of(task.group()); }

int32_t IpcActor::shown_to(const Task& reader) const {
    return pids == &reader.pid_namespace() ? pid : 0;
}

IpcPermissions IpcPermissions::of_creator(int32_t key, uint32_t flags, const Credentials& who) {
    return {key, who.euid, who.egid, who.euid, who.egid, flags & 0777};
}

Status IpcPermissions::check(const Credentials& who, uint32_t wanted) const {
    const uint32_t asked = (wanted >> 6 | wanted >> 3 | wanted) & 7;
    uint32_t granted = mode;
    if (who.euid == cuid || who.euid == uid) {
        granted >>= 6;
    } else if (who.in_group(cgid) || who.in_group(gid)) {
        granted >>= 3;
    }
    if ((asked & ~granted & 7) != 0 && !who.has_capability(CAP_IPC_OWNER)) {
        return Errno(EACCES);
    }
    return {};
}

Status IpcPermissions::check_owner(const Credentials& who) const {
    if (who.euid == cuid || who.euid == uid || who.has_capability(CAP_SYS_ADMIN)) {
        return {};
    }
    return Errno(EPERM);
}

Status IpcPermissions::change(const Credentials& who, const ipc_perm& wanted) {
    if (!who.has_uid(wanted.uid) || !who.has_gid(wanted.gid)) {
        return Errno(EINVAL);
    }
    uid = wanted.uid;
    gid = wanted.gid;
    mode = (mode & ~0777u) | (wanted.mode & 0777);
    return {};
}

ipc_perm IpcPermissions::to_user(int32_t id) const {
    ipc_perm p{};
    p.__key = key;
    p.uid = uid;
    p.gid = gid;
    p.cuid = cuid;
    p.cgid = cgid;
    p.mode = static_cast<decltype(p.mode)>(mode);
    p.__seq = static_cast<unsigned short>(id / (1 << 15));
    return p;
}

Status charge_ipc_memory(size_t bytes) {
    // Relaxed: a sum that nothing else depends on.
    const size_t before = charged.fetch_add(bytes, std::memory_order_relaxed);
    if (bytes > kMostIpcMemory || before > kMostIpcMemory - bytes) {
        charged.fetch_sub(bytes, std::memory_order_relaxed);
        return Errno(ENOMEM);
    }
    return {};
}

void release_ipc_memory(size_t bytes) { charged.fetch_sub(bytes, std::memory_order_relaxed); }

int64_t ipc_now() { return realtime_ns() / 1'000'000'000; }

}  // namespace moat::kernel
