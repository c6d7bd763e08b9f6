#include "kernel/fs/mqueue/mqueue.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>

#include "kernel/base/cleanup.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/vfs.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/task/container.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kMqueueMagic = 0x19800202;
// Linux: include/linux/ipc_namespace.h, what not even CAP_SYS_RESOURCE goes beyond.
constexpr int64_t kHardMessages = 65536;
constexpr int64_t kHardMessageBytes = 16 << 20;

/// Linux: mq_attr_ok().
Status check_attributes(const mq_attr& a, const MqueueFileSystem::Limits& limits,
                        const Credentials& who) {
    if (a.mq_maxmsg <= 0 || a.mq_msgsize <= 0) {
        return Errno(EINVAL);
    }
    const bool privileged = who.has_capability(CAP_SYS_RESOURCE);
    const int64_t messages = privileged ? kHardMessages : static_cast<int64_t>(limits.messages);
    const int64_t bytes =
        privileged ? kHardMessageBytes : static_cast<int64_t>(limits.message_bytes);
    return a.mq_maxmsg > messages || a.mq_msgsize > bytes ? Status(Errno(EINVAL)) : Status();
}

/// What a queue counts for against RLIMIT_MSGQUEUE (mq_overview(7)).
uint64_t cost_of(const mq_attr& a) {
    constexpr uint64_t kMessage = 48, kTreeNode = 48, kPriorities = 32768;
    const auto messages = static_cast<uint64_t>(a.mq_maxmsg);
    return messages * kMessage + std::min(messages, kPriorities) * kTreeNode +
           messages * static_cast<uint64_t>(a.mq_msgsize);
}

class QueueFile final : public File {
  public:
    QueueFile(RefPtr<MessageQueue> queue, uint32_t flags) : File(flags), queue_(std::move(queue)) {}

    MessageQueue& queue() { return *queue_; }
    std::string anonymous_name() const override { return "/" + queue_->name(); }
    Result<size_t> read(Task& task, IoBuffer& destination) override {
        MutexLock lock(mu_);
        const size_t n = TRY(pread(task, destination, position_));
        position_ += static_cast<int64_t>(n);
        return n;
    }
    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset) override {
        const std::string text = queue_->text(task);
        const auto at = std::min(text.size(), static_cast<size_t>(std::max<int64_t>(offset, 0)));
        return destination.put(text.data() + at, text.size() - at);
    }
    Result<struct stat> stat(Task&) override {
        return to_stat(TRY(queue_->attributes()), queue_->file_system().device());
    }
    PollMask poll() override { return queue_->poll(); }
    WaitQueue* wait_queue() override { return &queue_->events(); }
    void flush(Task& task) override {
        queue_->closed_by(task.group());
        File::flush(task);
    }

  private:
    const RefPtr<MessageQueue> queue_;
    Mutex<LockRank::kFilePosition> mu_;
    int64_t position_ GUARDED_BY(mu_) = 0;
};

class QueueDirectory final : public SyntheticDirectory {
  public:
    explicit QueueDirectory(MqueueFileSystem& fs) : SyntheticDirectory(fs, 01777) {
        set_changeable();
    }

    Result<RefPtr<Inode>> lookup(Task&, std::string_view name) override {
        MutexLock lock(mu_);
        const auto it = queues_.find(name);
        if (it == queues_.end()) {
            return Errno(ENOENT);
        }
        return RefPtr<Inode>(it->second);
    }
    Result<std::vector<DirectoryEntry>> list(Task&) override {
        MutexLock lock(mu_);
        std::vector<DirectoryEntry> entries;
        for (const auto& [name, queue] : queues_) {
            entries.push_back({name, queue->ino(), DT_REG});
        }
        return entries;
    }
    /// open(2) with O_CREAT: a queue with the default attributes.
    Result<RefPtr<Inode>> create(Task& task, std::string_view name, const NewInode& what) override {
        if ((what.mode & S_IFMT) != S_IFREG) {
            return Errno(EPERM);
        }
        return RefPtr<Inode>(TRY(make(task, name, what, nullptr)));
    }
    Status unlink(Task&, std::string_view name, Inode& victim) override {
        RefPtr<MessageQueue> removed;  // dropped without the lock
        MutexLock lock(mu_);
        const auto it = queues_.find(name);
        if (it == queues_.end() || it->second.get() != &victim) {
            return Errno(ENOENT);
        }
        removed = std::move(it->second);
        queues_.erase(it);
        lock.unlock();
        return {};
    }

    Result<RefPtr<MessageQueue>> make(Task& task, std::string_view name, const NewInode& what,
                                      const mq_attr* attributes) {
        auto& fs = static_cast<MqueueFileSystem&>(file_system());
        const auto& limits = fs.limits();
        const auto who = task.credentials();
        mq_attr chosen{};
        chosen.mq_maxmsg = static_cast<int64_t>(std::min(limits.default_messages, limits.messages));
        chosen.mq_msgsize =
            static_cast<int64_t>(std::min(limits.default_message_bytes, limits.message_bytes));
        if (attributes != nullptr) {
            TRY(check_attributes(*attributes, limits, *who));
            chosen = *attributes;
        }
        MutexLock lock(mu_);
        if (queues_.find(name) != queues_.end()) {
            return Errno(EEXIST);
        }
        if (queues_.size() >= limits.queues &&
            (!who->has_capability(CAP_SYS_RESOURCE) || queues_.size() >= kHardMessages)) {
            return Errno(ENOSPC);
        }
        TRY(fs.charge(who->uid, cost_of(chosen), task.rlimit(RLIMIT_MSGQUEUE)));
        auto queue = make_ref<MessageQueue>(fs, std::string(name), what.mode, chosen, who->uid,
                                            cost_of(chosen));
        queue->set_owner(what.uid, what.gid);
        queues_.emplace(name, queue);
        return queue;
    }

  private:
    Mutex<LockRank::kInodeDirectory> mu_;
    std::map<std::string, RefPtr<MessageQueue>, std::less<>> queues_ GUARDED_BY(mu_);
};

QueueDirectory& directory_of(MqueueFileSystem& fs) {
    return static_cast<QueueDirectory&>(*fs.root());
}

}  // namespace

// ---------------------------------------------------------------- the file system

MqueueFileSystem::MqueueFileSystem(const Limits& limits)
    : SyntheticFileSystem("mqueue", kMqueueMagic), limits_(limits) {
    set_dentries_stable(false);  // mq_open() and mq_unlink() do not go by names of a mount
}

RefPtr<MqueueFileSystem> MqueueFileSystem::create(const Limits& limits) {
    auto fs = adopt_ref(new MqueueFileSystem(limits));
    fs->set_root(make_ref<QueueDirectory>(*fs));
    return fs;
}

Status MqueueFileSystem::charge(uint32_t uid, uint64_t bytes, uint64_t limit) {
    MutexLock lock(mu_);
    uint64_t& used = bytes_of_user_[uid];
    if (used + bytes > limit) {
        if (used == 0) {
            bytes_of_user_.erase(uid);
        }
        return Errno(EMFILE);
    }
    used += bytes;
    return {};
}

void MqueueFileSystem::release(uint32_t uid, uint64_t bytes) {
    MutexLock lock(mu_);
    const auto it = bytes_of_user_.find(uid);
    if (it != bytes_of_user_.end() && (it->second -= bytes) == 0) {
        bytes_of_user_.erase(it);
    }
}

Result<RefPtr<File>> MqueueFileSystem::open_queue(Task& task, const std::string& name,
                                                  uint32_t flags, uint32_t mode,
                                                  const mq_attr* attributes) {
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
        return Errno(EACCES);
    }
    if (name.size() > NAME_MAX) {
        return Errno(ENAMETOOLONG);
    }
    if ((flags & O_ACCMODE) == O_ACCMODE) {
        return Errno(EINVAL);
    }
    QueueDirectory& directory = directory_of(*this);
    for (;;) {
        auto found = directory.lookup(task, name);
        RefPtr<Inode> inode;
        if (found.ok()) {
            if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
                return Errno(EEXIST);
            }
            inode = std::move(found).value();
            const uint32_t access = flags & O_ACCMODE;
            TRY(check_permission(
                task, *inode,
                (access != O_WRONLY ? kMayRead : 0) | (access != O_RDONLY ? kMayWrite : 0)));
        } else {
            if ((flags & O_CREAT) == 0) {
                return found.error();
            }
            TRY(check_permission(task, directory, kMayWrite | kMayExec));
            const NewInode what =
                TRY(new_inode_in(task, directory, S_IFREG | (mode & 0777 & ~task.fs().umask())));
            auto made = directory.make(task, name, what, attributes);
            if (!made.ok()) {
                if (made.error() == EEXIST && (flags & O_EXCL) == 0) {
                    continue;  // somebody else was quicker
                }
                return made.error();
            }
            inode = std::move(made).value();
        }
        return inode->open(task, Path(), flags & (O_ACCMODE | O_NONBLOCK));
    }
}

Status MqueueFileSystem::unlink_queue(Task& task, const std::string& name) {
    QueueDirectory& directory = directory_of(*this);
    const RefPtr<Inode> inode = TRY(directory.lookup(task, name));
    TRY(check_delete(task, directory, *inode));
    return directory.unlink(task, name, *inode);
}

Result<MessageQueue*> message_queue_of(File& file) {
    auto* const queue = dynamic_cast<QueueFile*>(&file);
    if (queue == nullptr) {
        return Errno(EBADF);
    }
    return &queue->queue();
}

void register_mqueue() {
    register_file_system("mqueue", GuestMayMount::kYes,
                         [](const FileSystemRequest& request) -> Result<RefPtr<FileSystem>> {
                             Container* const container = request.task != nullptr
                                                              ? &request.task->container()
                                                              : request.container;
                             if (container == nullptr) {
                                 return Errno(EINVAL);
                             }
                             return RefPtr<FileSystem>(container->ipc().mqueue_ref());
                         });
}

Result<RefPtr<File>> MessageQueue::open(Task&, const Path& path, uint32_t flags) {
    auto file = make_ref<QueueFile>(RefPtr<MessageQueue>(this), flags);
    file->set_path(path);
    return RefPtr<File>(std::move(file));
}

}  // namespace moat::kernel
