#pragma once

// POSIX message queues (mq_overview(7)): files of a file system of which each IPC namespace has
// one, mounted or not.

#include <mqueue.h>

#include <list>
#include <map>
#include <memory>
#include <string>

#include "kernel/base/mutex.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/ipc/msg.h"

namespace moat::kernel {

class ThreadGroup;

class MqueueFileSystem final : public SyntheticFileSystem {
  public:
    struct Limits {
        uint64_t queues = 256;                  ///< fs.mqueue.queues_max
        uint64_t messages = 10;                 ///< of a queue: fs.mqueue.msg_max
        uint64_t default_messages = 10;         ///< fs.mqueue.msg_default
        uint64_t message_bytes = 8192;          ///< fs.mqueue.msgsize_max
        uint64_t default_message_bytes = 8192;  ///< fs.mqueue.msgsize_default
    };
    static RefPtr<MqueueFileSystem> create(const Limits& limits);

    /// mq_open(2); `attributes` may be null. O_CREAT, O_EXCL, O_NONBLOCK and the access mode of
    /// `flags` count.
    Result<RefPtr<File>> open_queue(Task& task, const std::string& name, uint32_t flags,
                                    uint32_t mode, const mq_attr* attributes);
    /// mq_unlink(2).
    Status unlink_queue(Task& task, const std::string& name);

    const Limits& limits() const { return limits_; }
    /// What the queues of one user take, against RLIMIT_MSGQUEUE. EMFILE.
    Status charge(uint32_t uid, uint64_t bytes, uint64_t limit);
    void release(uint32_t uid, uint64_t bytes);

  private:
    explicit MqueueFileSystem(const Limits& limits);

    const Limits limits_;
    Mutex<LockRank::kFileSystem> mu_;
    std::map<uint32_t, uint64_t> bytes_of_user_ GUARDED_BY(mu_);
};

/// A process's wish to be told of a message that comes to an empty queue (mq_notify(3)).
struct MqueueNotify {
    int how = SIGEV_NONE;  ///< SIGEV_NONE, SIGEV_SIGNAL
    int signal = 0;
    uint64_t value = 0;
};

/// A queue: an inode of the file system.
class MessageQueue final : public SyntheticInode {
  public:
    MessageQueue(MqueueFileSystem& fs, std::string name, uint32_t mode, const mq_attr& attributes,
                 uint32_t charged_uid, uint64_t charged_bytes);
    ~MessageQueue() override;

    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;

    /// mq_timedsend(2) and mq_timedreceive(2); both block unless told otherwise. `message->type` is
    /// the priority.
    Result<int64_t> send(Task& task, std::unique_ptr<IpcMessage> message, bool may_block,
                         Deadline deadline);
    /// `size` is that of the buffer. EMSGSIZE. `deliver` copies the message out.
    struct Target {
        uint64_t address;
        uint64_t priority_address;
    };
    using Deliver = Result<int64_t> (*)(Task&, const Target&, const IpcMessage&);
    Result<int64_t> receive(Task& task, size_t size, const Target& target, Deliver deliver,
                            bool may_block, Deadline deadline);
    /// mq_notify(2); null takes the caller's own wish back. EBUSY.
    Status notify(Task& task, const MqueueNotify* wish);
    /// A descriptor of the queue was closed by a process: so does its wish end.
    void closed_by(const ThreadGroup& group);
    /// The one it was made with.
    const std::string& name() const { return name_; }
    /// Without mq_flags.
    mq_attr attributes_now();
    size_t message_bytes() const { return static_cast<size_t>(attributes_.mq_msgsize); }
    PollMask poll();
    WaitQueue& events() { return events_; }
    /// What read(2) of the file shows.
    std::string text(const Task& reader);

  private:
    struct Waiter final : IpcWaiter {
        using IpcWaiter::IpcWaiter;
        std::unique_ptr<IpcMessage> message;  // a sender's until, a receiver's once it is done
    };
    int64_t content_size() override { return 80; }  // Linux: FILENT_SIZE
    void put_locked(std::unique_ptr<IpcMessage> message) REQUIRES(mu_);
    std::unique_ptr<IpcMessage> take_locked() REQUIRES(mu_);
    bool is_full_locked() const REQUIRES(mu_) {
        return count_ >= static_cast<size_t>(attributes_.mq_maxmsg);
    }

    const std::string name_;
    const mq_attr attributes_;
    const uint32_t charged_uid_;
    const uint64_t charged_bytes_;
    Mutex<LockRank::kPipe> mu_;
    // By priority, the highest first; each in the order of sending.
    std::map<int64_t, std::list<std::unique_ptr<IpcMessage>>, std::greater<>> messages_
        GUARDED_BY(mu_);
    size_t count_ GUARDED_BY(mu_) = 0;
    size_t bytes_ GUARDED_BY(mu_) = 0;
    std::list<RefPtr<Waiter>> senders_ GUARDED_BY(mu_);
    std::list<RefPtr<Waiter>> receivers_ GUARDED_BY(mu_);
    RefPtr<ThreadGroup> notified_ GUARDED_BY(mu_);  // null: nobody
    MqueueNotify wish_ GUARDED_BY(mu_);
    WaitQueue events_;
};

/// The queue behind a descriptor. EBADF: another kind of file.
Result<MessageQueue*> message_queue_of(File& file);

/// Registers "mqueue". At boot.
void register_mqueue();

}  // namespace moat::kernel
