#pragma once

// System V message queues (msgget(2)).

#include <sys/msg.h>

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "kernel/base/mutex.h"
#include "kernel/ipc/ipc_object.h"
#include "kernel/ipc/waiting.h"

namespace moat::kernel {

/// A message, and what of the ipc memory it takes.
class IpcMessage {
  public:
    /// ENOMEM.
    static Result<std::unique_ptr<IpcMessage>> create(int64_t type, size_t size);
    ~IpcMessage();
    IpcMessage(const IpcMessage&) = delete;
    IpcMessage& operator=(const IpcMessage&) = delete;

    const int64_t type;
    std::string bytes;

  private:
    IpcMessage(int64_t t, size_t size) : type(t), bytes(size, '\0'), charged_(size + kOverhead) {}
    static constexpr size_t kOverhead = 96;
    const size_t charged_;
};

/// What msgrcv(2) wants.
struct MsgSelection {
    int64_t type = 0;
    uint32_t flags = 0;
    size_t size = 0;  ///< the longest that fits

    bool takes(int64_t message_type) const;
};

class MsgReceiver final : public IpcWaiter {
  public:
    MsgReceiver(Task& sleeper, const MsgSelection& wanted)
        : IpcWaiter(sleeper), selection(wanted), actor(IpcActor::of(sleeper)) {}
    const MsgSelection selection;
    const IpcActor actor;
    std::unique_ptr<IpcMessage> message;  ///< once it is done well
};

class MsgQueue final : public IpcObject {
  public:
    ~MsgQueue() override;
    std::list<std::unique_ptr<IpcMessage>> messages;
    size_t bytes = 0;
    uint64_t most_bytes = 0;
    int64_t sent_at = 0, received_at = 0, changed_at = 0;
    IpcActor last_sender, last_receiver;
    std::list<RefPtr<MsgReceiver>> receivers;  ///< in the order of their coming
    WaitQueue writable;                        ///< senders look again
};

/// The message queues of an IPC namespace.
class MsgTable {
  public:
    struct Limits {
        uint64_t message_bytes = 8192;  ///< kernel.msgmax
        uint64_t queue_bytes = 16384;   ///< kernel.msgmnb
        uint64_t queues = 32000;        ///< kernel.msgmni
    };

    explicit MsgTable(const Limits& limits) : limits_(limits) {}

    Result<int32_t> get(Task& task, int32_t key, uint32_t flags);
    /// Both block.
    Result<int64_t> send(Task& task, int32_t id, std::unique_ptr<IpcMessage> message,
                         uint32_t flags);
    /// `deliver` copies the message out and gives the call's result.
    using Deliver = Result<int64_t> (*)(Task&, uint64_t address, const IpcMessage&, size_t size);
    Result<int64_t> receive(Task& task, int32_t id, const MsgSelection& selection, uint64_t address,
                            Deliver deliver);

    struct Status64 {
        msqid_ds ds;
        int32_t id;
    };
    enum class By : uint8_t { kId, kIndex, kIndexAny };
    Result<Status64> stat(Task& task, int32_t number, By by);
    Status set(Task& task, int32_t id, const msqid_ds& wanted);
    Status remove(Task& task, int32_t id);
    struct Info {
        int32_t highest;
        uint64_t queues, messages, bytes;
    };
    Info info();
    const Limits& limits() const { return limits_; }
    /// /proc/sysvipc/msg.
    std::string text(const Task& reader);

  private:
    Result<int64_t> try_send(Task& task, MsgQueue& queue, std::unique_ptr<IpcMessage>& message);
    Result<std::unique_ptr<IpcMessage>> take_locked(MsgQueue& queue, const MsgSelection& selection,
                                                    const IpcActor& who) REQUIRES(mu_);

    Mutex<LockRank::kIpc> mu_;
    IpcTable<MsgQueue> queues_ GUARDED_BY(mu_);
    const Limits limits_;
};

}  // namespace moat::kernel
