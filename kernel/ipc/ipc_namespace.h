#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "kernel/base/ref_ptr.h"
#include "kernel/fs/mqueue/mqueue.h"
#include "kernel/ipc/msg.h"
#include "kernel/ipc/sem.h"
#include "kernel/ipc/shm.h"

namespace moat::kernel {

class ThreadGroup;

/// System V objects and POSIX message queues that containers see together (ipc_namespaces(7)): one
/// for the pod, and one for each container that has its own. Lives as long as a container in it.
class IpcNamespace final : public RefCounted {
  public:
    /// Limits from the pod's sysctls by dotted name (kernel.shmmax, ...); what is malformed or
    /// missing is Linux's default.
    explicit IpcNamespace(const std::map<std::string, std::string>& sysctls);

    ShmTable& shm() { return shm_; }
    SemTable& sem() { return sem_; }
    MsgTable& msg() { return msg_; }
    MqueueFileSystem& mqueue() { return *mqueue_; }
    const RefPtr<MqueueFileSystem>& mqueue_ref() const { return mqueue_; }

    /// A process has ended: its semaphore adjustments are made, and with kernel.shm_rmid_forced its
    /// segments that nobody has attached go.
    void process_exited(const ThreadGroup& group);

  private:
    ShmTable shm_;
    SemTable sem_;
    MsgTable msg_;
    const RefPtr<MqueueFileSystem> mqueue_;
};

}  // namespace moat::kernel
