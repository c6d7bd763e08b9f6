#include "kernel/ipc/msg.h"

#include <linux/capability.h>

#include <algorithm>

#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/task/block.h"

namespace moat::kernel {

Result<std::unique_ptr<IpcMessage>> IpcMessage::create(int64_t type, size_t size) {
    TRY(charge_ipc_memory(size + kOverhead));
    return std::unique_ptr<IpcMessage>(new IpcMessage(type, size));
}

IpcMessage::~IpcMessage() { release_ipc_memory(charged_); }

bool MsgSelection::takes(int64_t message_type) const {
    if (type == 0) {
        return true;
    }
    if (type < 0) {
        return message_type <= (type == INT64_MIN ? INT64_MAX : -type);
    }
    return (message_type == type) != ((flags & MSG_EXCEPT) != 0);
}

MsgQueue::~MsgQueue() { release_ipc_memory(sizeof(MsgQueue)); }

Result<int32_t> MsgTable::get(Task& task, int32_t key, uint32_t flags) {
    MutexLock lock(mu_);
    return queues_.get(
        *task.credentials(), key, flags, [](const MsgQueue&) { return Status(); },
        [&]() NO_THREAD_SAFETY_ANALYSIS -> Result<int32_t> {
            if (queues_.count() >= limits_.queues) {
                return Errno(ENOSPC);
            }
            TRY(charge_ipc_memory(sizeof(MsgQueue)));
            auto queue = make_ref<MsgQueue>();
            queue->permissions = IpcPermissions::of_creator(key, flags, *task.credentials());
            queue->most_bytes = limits_.queue_bytes;
            queue->changed_at = ipc_now();
            queues_.insert(queue);
            return queue->id;
        });
}

// ---------------------------------------------------------------- sending

// EAGAIN: no room.
Result<int64_t> MsgTable::try_send(Task& task, MsgQueue& queue,
                                   std::unique_ptr<IpcMessage>& message) {
    MutexLock lock(mu_);
    if (queue.removed) {
        return Errno(EIDRM);
    }
    TRY(queue.permissions.check(*task.credentials(), 0222));
    const size_t size = message->bytes.size();
    if (queue.bytes + size > queue.most_bytes || queue.messages.size() + 1 > queue.most_bytes) {
        return Errno(EAGAIN);
    }
    queue.last_sender = IpcActor::of(task);
    queue.sent_at = ipc_now();
    for (auto it = queue.receivers.begin(); it != queue.receivers.end();) {
        const RefPtr<MsgReceiver> receiver = *it;
        if (!receiver->selection.takes(message->type)) {
            ++it;
            continue;
        }
        it = queue.receivers.erase(it);
        if (size > receiver->selection.size && (receiver->selection.flags & MSG_NOERROR) == 0) {
            receiver->finish(Errno(E2BIG));
            continue;
        }
        queue.last_receiver = receiver->actor;
        queue.received_at = ipc_now();
        receiver->message = std::move(message);
        receiver->finish({});
        return 0;
    }
    queue.bytes += size;
    queue.messages.push_back(std::move(message));
    return 0;
}

Result<int64_t> MsgTable::send(Task& task, int32_t id, std::unique_ptr<IpcMessage> message,
                               uint32_t flags) {
    RefPtr<MsgQueue> queue;
    {
        MutexLock lock(mu_);
        queue = TRY(queues_.find(id));
    }
    // A continuation can be copied, its message cannot.
    auto held = std::make_shared<std::unique_ptr<IpcMessage>>(std::move(message));
    MsgQueue& q = *queue;
    return attempt_or_block(task, {&q.writable, EPOLLOUT}, (flags & IPC_NOWAIT) == 0,
                            Deadline::never(), kRestartNoHand,
                            [this, queue, held, sender = RefPtr<Task>(&task)] {
                                return try_send(*sender, *queue, *held);
                            });
}

// ---------------------------------------------------------------- receiving

// ENOMSG: none that fits the selection.
Result<std::unique_ptr<IpcMessage>> MsgTable::take_locked(MsgQueue& queue,
                                                          const MsgSelection& selection,
                                                          const IpcActor& who) {
    auto found = queue.messages.end();
    if ((selection.flags & MSG_COPY) != 0) {
        int64_t n = selection.type;
        for (auto it = queue.messages.begin(); it != queue.messages.end(); ++it, n--) {
            if (n == 0) {
                found = it;
                break;
            }
        }
    } else {
        for (auto it = queue.messages.begin(); it != queue.messages.end(); ++it) {
            if (selection.takes((*it)->type) &&
                (found == queue.messages.end() || (*it)->type < (*found)->type)) {
                found = it;
                if (selection.type >= 0) {
                    break;  // else the lowest type of those that fit
                }
            }
        }
    }
    if (found == queue.messages.end()) {
        return Errno(ENOMSG);
    }
    if ((*found)->bytes.size() > selection.size && (selection.flags & MSG_NOERROR) == 0) {
        return Errno(E2BIG);
    }
    if ((selection.flags & MSG_COPY) != 0) {
        auto copy = TRY(IpcMessage::create((*found)->type, (*found)->bytes.size()));
        copy->bytes = (*found)->bytes;
        return copy;
    }
    std::unique_ptr<IpcMessage> message = std::move(*found);
    queue.messages.erase(found);
    queue.bytes -= message->bytes.size();
    queue.last_receiver = who;
    queue.received_at = ipc_now();
    queue.writable.notify(EPOLLOUT);
    return message;
}

Result<int64_t> MsgTable::receive(Task& task, int32_t id, const MsgSelection& selection,
                                  uint64_t address, Deliver deliver) {
    RefPtr<MsgReceiver> receiver;
    RefPtr<MsgQueue> queue;
    std::unique_ptr<IpcMessage> message;
    {
        MutexLock lock(mu_);
        queue = TRY(queues_.find(id));
        TRY(queue->permissions.check(*task.credentials(), 0444));
        auto taken = take_locked(*queue, selection, IpcActor::of(task));
        if (taken.ok()) {
            message = std::move(taken).value();
        } else if (!(taken.error() == ENOMSG) || (selection.flags & IPC_NOWAIT) != 0) {
            return taken.error();
        } else {
            receiver = make_ref<MsgReceiver>(task, selection);
            queue->receivers.push_back(receiver);
        }
    }
    if (message) {
        return deliver(task, address, *message, selection.size);
    }
    return block(task, {}, Deadline::never(),
                 [this, queue, receiver, address, deliver](Task& t, Wake wake) -> Result<int64_t> {
                     std::unique_ptr<IpcMessage> got;
                     {
                         MutexLock lock(mu_);
                         if (!receiver->done) {
                             if (wake == Wake::kReady) {
                                 return kBlocked;
                             }
                             queue->receivers.remove(receiver);
                             return kRestartNoHand;
                         }
                         TRY(receiver->result);
                         got = std::move(receiver->message);
                     }
                     return deliver(t, address, *got, receiver->selection.size);
                 });
}

// ---------------------------------------------------------------- control

Result<MsgTable::Status64> MsgTable::stat(Task& task, int32_t number, By by) {
    MutexLock lock(mu_);
    const RefPtr<MsgQueue> queue = by == By::kId ? TRY(queues_.find(number)) : queues_.at(number);
    if (!queue) {
        return Errno(EINVAL);
    }
    if (by != By::kIndexAny) {
        TRY(queue->permissions.check(*task.credentials(), 0444));
    }
    Status64 status{};
    status.id = queue->id;
    status.ds.msg_perm = queue->permissions.to_user(queue->id);
    status.ds.msg_stime = queue->sent_at;
    status.ds.msg_rtime = queue->received_at;
    status.ds.msg_ctime = queue->changed_at;
    status.ds.__msg_cbytes = queue->bytes;
    status.ds.msg_qnum = queue->messages.size();
    status.ds.msg_qbytes = queue->most_bytes;
    status.ds.msg_lspid = queue->last_sender.shown_to(task);
    status.ds.msg_lrpid = queue->last_receiver.shown_to(task);
    return status;
}

Status MsgTable::set(Task& task, int32_t id, const msqid_ds& wanted) {
    MutexLock lock(mu_);
    const RefPtr<MsgQueue> queue = TRY(queues_.find(id));
    const auto who = task.credentials();
    TRY(queue->permissions.check_owner(*who));
    if (wanted.msg_qbytes > limits_.queue_bytes && !who->has_capability(CAP_SYS_RESOURCE)) {
        return Errno(EPERM);
    }
    TRY(queue->permissions.change(*who, wanted.msg_perm));
    queue->most_bytes = wanted.msg_qbytes;
    queue->changed_at = ipc_now();
    queue->writable.notify(EPOLLOUT);
    return {};
}

Status MsgTable::remove(Task& task, int32_t id) {
    RefPtr<MsgQueue> queue;  // dropped without the lock
    MutexLock lock(mu_);
    queue = TRY(queues_.find(id));
    TRY(queue->permissions.check_owner(*task.credentials()));
    queues_.remove(*queue);
    for (const auto& receiver : queue->receivers) {
        receiver->finish(Errno(EIDRM));
    }
    queue->receivers.clear();
    queue->writable.notify(EPOLLOUT);
    lock.unlock();
    return {};
}

MsgTable::Info MsgTable::info() {
    MutexLock lock(mu_);
    Info info{queues_.highest(), queues_.count(), 0, 0};
    for (const auto& queue : queues_.slots()) {
        if (queue) {
            info.messages += queue->messages.size();
            info.bytes += queue->bytes;
        }
    }
    return info;
}

std::string MsgTable::text(const Task& reader) {
    std::string s =
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
        "      stime      rtime      ctime\n";
    MutexLock lock(mu_);
    for (const auto& queue : queues_.slots()) {
        if (queue) {
            const IpcPermissions& p = queue->permissions;
            append_text(s,
                        "%10d %10d  %4o  %10zu %10zu %5d %5d %5u %5u %5u %5u %10lld %10lld"
                        " %10lld\n",
                        p.key, queue->id, p.mode, queue->bytes, queue->messages.size(),
                        queue->last_sender.shown_to(reader), queue->last_receiver.shown_to(reader),
                        p.uid, p.gid, p.cuid, p.cgid, static_cast<long long>(queue->sent_at),
                        static_cast<long long>(queue->received_at),
                        static_cast<long long>(queue->changed_at));
        }
    }
    return s;
}

}  // namespace moat::kernel
