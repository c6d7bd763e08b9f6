// One POSIX message queue: who waits for what, and who is told.

#include <fcntl.h>

#include <algorithm>

#include "kernel/fs/mqueue/mqueue.h"
#include "kernel/task/block.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

MessageQueue::MessageQueue(MqueueFileSystem& fs, std::string name, uint32_t mode,
                           const mq_attr& attributes, uint32_t charged_uid, uint64_t charged_bytes)
    : SyntheticInode(fs, S_IFREG | (mode & 07777)),
      name_(std::move(name)),
      attributes_(attributes),
      charged_uid_(charged_uid),
      charged_bytes_(charged_bytes) {
    set_changeable();
}

MessageQueue::~MessageQueue() {
    static_cast<MqueueFileSystem&>(file_system()).release(charged_uid_, charged_bytes_);
}

void MessageQueue::put_locked(std::unique_ptr<IpcMessage> message) {
    bytes_ += message->bytes.size();
    count_++;
    messages_[message->type].push_back(std::move(message));
    events_.notify(EPOLLIN);
}

std::unique_ptr<IpcMessage> MessageQueue::take_locked() {
    const auto highest = messages_.begin();
    std::unique_ptr<IpcMessage> message = std::move(highest->second.front());
    highest->second.pop_front();
    if (highest->second.empty()) {
        messages_.erase(highest);
    }
    bytes_ -= message->bytes.size();
    count_--;
    return message;
}

Result<int64_t> MessageQueue::send(Task& task, std::unique_ptr<IpcMessage> message, bool may_block,
                                   Deadline deadline) {
    RefPtr<Waiter> waiter;
    RefPtr<ThreadGroup> told;
    MqueueNotify wish;
    {
        MutexLock lock(mu_);
        if (is_full_locked()) {
            if (!may_block) {
                return Errno(EAGAIN);
            }
            waiter = make_ref<Waiter>(task);
            waiter->message = std::move(message);
            senders_.push_back(waiter);
        } else if (!receivers_.empty()) {
            const RefPtr<Waiter> receiver = std::move(receivers_.front());
            receivers_.pop_front();
            receiver->message = std::move(message);
            receiver->finish({});
        } else {
            const bool was_empty = count_ == 0;
            put_locked(std::move(message));
            if (was_empty && notified_) {
                told = std::move(notified_);
                wish = wish_;
            }
        }
    }
    if (told && wish.how == SIGEV_SIGNAL) {
        SignalInfo info =
            SignalInfo::from_process(wish.signal, SI_MESGQ, task.pid(), task.credentials()->uid);
        info.process.value = wish.value;
        (void)send_signal(*told, info);
    }
    if (!waiter) {
        return 0;
    }
    return block(task, {}, deadline,
                 [self = RefPtr<MessageQueue>(this), waiter](Task&, Wake wake) -> Result<int64_t> {
                     MutexLock lock(self->mu_);
                     if (waiter->done) {
                         return 0;
                     }
                     if (wake == Wake::kReady) {
                         return kBlocked;
                     }
                     self->senders_.remove(waiter);
                     return wake == Wake::kTimeout ? Errno(ETIMEDOUT) : kRestartSys;
                 });
}

Result<int64_t> MessageQueue::receive(Task& task, size_t size, const Target& target,
                                      Deliver deliver, bool may_block, Deadline deadline) {
    if (size < message_bytes()) {
        return Errno(EMSGSIZE);
    }
    RefPtr<Waiter> waiter;
    std::unique_ptr<IpcMessage> message;
    {
        MutexLock lock(mu_);
        if (count_ > 0) {
            message = take_locked();
            if (!senders_.empty()) {
                const RefPtr<Waiter> sender = std::move(senders_.front());
                senders_.pop_front();
                put_locked(std::move(sender->message));
                sender->finish({});
            } else {
                events_.notify(EPOLLOUT);
            }
        } else if (!may_block) {
            return Errno(EAGAIN);
        } else {
            waiter = make_ref<Waiter>(task);
            receivers_.push_back(waiter);
        }
    }
    if (message) {
        return deliver(task, target, *message);
    }
    return block(task, {}, deadline,
                 [self = RefPtr<MessageQueue>(this), waiter, target, deliver](
                     Task& t, Wake wake) -> Result<int64_t> {
                     std::unique_ptr<IpcMessage> got;
                     {
                         MutexLock lock(self->mu_);
                         if (!waiter->done) {
                             if (wake == Wake::kReady) {
                                 return kBlocked;
                             }
                             self->receivers_.remove(waiter);
                             return wake == Wake::kTimeout ? Errno(ETIMEDOUT) : kRestartSys;
                         }
                         got = std::move(waiter->message);
                     }
                     return deliver(t, target, *got);
                 });
}

Status MessageQueue::notify(Task& task, const MqueueNotify* wish) {
    RefPtr<ThreadGroup> dropped;
    MutexLock lock(mu_);
    if (wish == nullptr) {
        if (notified_ == &task.group()) {
            dropped = std::move(notified_);
        }
    } else if (notified_) {
        return Errno(EBUSY);
    } else {
        notified_ = RefPtr<ThreadGroup>(&task.group());
        wish_ = *wish;
    }
    lock.unlock();
    return {};
}

void MessageQueue::closed_by(const ThreadGroup& group) {
    RefPtr<ThreadGroup> dropped;
    MutexLock lock(mu_);
    if (notified_ == &group) {
        dropped = std::move(notified_);
    }
    lock.unlock();
}

mq_attr MessageQueue::attributes_now() {
    mq_attr now = attributes_;
    now.mq_flags = 0;
    MutexLock lock(mu_);
    now.mq_curmsgs = static_cast<long>(count_);
    return now;
}

PollMask MessageQueue::poll() {
    MutexLock lock(mu_);
    return (count_ > 0 ? EPOLLIN | EPOLLRDNORM : 0u) |
           (!is_full_locked() ? EPOLLOUT | EPOLLWRNORM : 0u);
}

std::string MessageQueue::text(const Task& reader) {
    MutexLock lock(mu_);
    const bool shown = notified_ && wish_.how == SIGEV_SIGNAL;
    const int32_t pid =
        notified_ && &notified_->pid_namespace() == &reader.pid_namespace() ? notified_->pid() : 0;
    return format_text("QSIZE:%-10zu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", bytes_,
                       notified_ ? wish_.how : 0, shown ? wish_.signal : 0, pid);
}

}  // namespace moat::kernel
