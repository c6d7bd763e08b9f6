#include "kernel/ipc/ipc_namespace.h"

#include <stdlib.h>

#include <algorithm>
#include <vector>

namespace moat::kernel {

namespace {

using Sysctls = std::map<std::string, std::string>;

/// The numbers of a sysctl, over `defaults`: as many as are given and well-formed, each at most
/// `most`.
std::vector<uint64_t> numbers(const Sysctls& sysctls, const char* name,
                              std::vector<uint64_t> defaults, uint64_t most) {
    const auto it = sysctls.find(name);
    if (it == sysctls.end()) {
        return defaults;
    }
    const char* at = it->second.c_str();
    for (uint64_t& number : defaults) {
        char* end = nullptr;
        const unsigned long long value = strtoull(at, &end, 10);
        if (end == at) {
            break;
        }
        number = std::min<uint64_t>(value, most);
        at = end;
    }
    return defaults;
}

uint64_t number(const Sysctls& sysctls, const char* name, uint64_t otherwise, uint64_t most) {
    return numbers(sysctls, name, {otherwise}, most)[0];
}

constexpr uint64_t kMostObjects = IpcTable<IpcObject>::kMostObjects;

ShmTable::Limits shm_limits(const Sysctls& s) {
    ShmTable::Limits limits;
    limits.bytes = number(s, "kernel.shmmax", limits.bytes, UINT64_MAX);
    limits.pages = number(s, "kernel.shmall", limits.pages, UINT64_MAX);
    limits.segments = number(s, "kernel.shmmni", limits.segments, kMostObjects);
    limits.remove_forced = number(s, "kernel.shm_rmid_forced", 0, 1) != 0;
    return limits;
}

SemTable::Limits sem_limits(const Sysctls& s) {
    SemTable::Limits limits;
    const auto sem = numbers(
        s, "kernel.sem", {limits.per_set, limits.total, limits.operations, limits.sets}, INT32_MAX);
    limits.per_set = std::min<uint64_t>(sem[0], 65536);
    limits.total = sem[1];
    limits.operations = std::min<uint64_t>(sem[2], 1 << 16);
    limits.sets = std::min<uint64_t>(sem[3], kMostObjects);
    return limits;
}

MsgTable::Limits msg_limits(const Sysctls& s) {
    MsgTable::Limits limits;
    // A message lies in the sentry's memory as a whole before it is queued.
    limits.message_bytes = number(s, "kernel.msgmax", limits.message_bytes, kMostIpcMemory);
    limits.queue_bytes = number(s, "kernel.msgmnb", limits.queue_bytes, INT32_MAX);
    limits.queues = number(s, "kernel.msgmni", limits.queues, kMostObjects);
    return limits;
}

MqueueFileSystem::Limits mqueue_limits(const Sysctls& s) {
    MqueueFileSystem::Limits limits;
    limits.messages = number(s, "fs.mqueue.msg_max", limits.messages, 65536);
    limits.default_messages = number(s, "fs.mqueue.msg_default", limits.default_messages, 65536);
    limits.message_bytes = number(s, "fs.mqueue.msgsize_max", limits.message_bytes, 16 << 20);
    limits.default_message_bytes =
        number(s, "fs.mqueue.msgsize_default", limits.default_message_bytes, 16 << 20);
    limits.queues = number(s, "fs.mqueue.queues_max", limits.queues, INT32_MAX);
    return limits;
}

}  // namespace

IpcNamespace::IpcNamespace(const Sysctls& sysctls)
    : shm_(shm_limits(sysctls)),
      sem_(sem_limits(sysctls)),
      msg_(msg_limits(sysctls)),
      mqueue_(MqueueFileSystem::create(mqueue_limits(sysctls))) {}

void IpcNamespace::process_exited(const ThreadGroup& group) {
    sem_.process_exited(group);
    shm_.process_exited(group);
}

}  // namespace moat::kernel
