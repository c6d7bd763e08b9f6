#pragma once

// What shared memory segments, semaphore sets and message queues have in common: keys, identifiers,
// permissions (sysvipc(7); Linux: ipc/util.c).

#include <sys/ipc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/credentials.h"

namespace moat::kernel {

class PidNamespace;
class Task;
class ThreadGroup;

/// Whoever last did something to an object. A reader of another pid namespace is shown 0.
struct IpcActor {
    int32_t pid = 0;
    const PidNamespace* pids = nullptr;  ///< compared, never followed

    static IpcActor of(const ThreadGroup& group);
    static IpcActor of(const Task& task);
    int32_t shown_to(const Task& reader) const;
};

struct IpcPermissions {
    int32_t key = 0;
    uint32_t uid = 0, gid = 0;    ///< the owner
    uint32_t cuid = 0, cgid = 0;  ///< the creator
    uint32_t mode = 0;            ///< and, for segments, SHM_DEST

    static IpcPermissions of_creator(int32_t key, uint32_t flags, const Credentials& who);
    /// `wanted` has the bits of any class, as shmget(2)'s flags do (Linux: ipcperms()). EACCES.
    Status check(const Credentials& who, uint32_t wanted) const;
    /// IPC_SET and IPC_RMID (Linux: ipcctl_obtain_check()). EPERM.
    Status check_owner(const Credentials& who) const;
    /// IPC_SET. EINVAL: the user namespace has no such id.
    Status change(const Credentials& who, const ipc_perm& wanted);
    ipc_perm to_user(int32_t id) const;
};

/// Everything in it is guarded by the lock of its kind's table.
class IpcObject : public RefCounted {
  public:
    int32_t id = -1;
    bool removed = false;
    IpcPermissions permissions;
};

/// Memory of the sentry that guests fill through these objects: messages, semaphores, undo lists.
/// One sum for the sandbox, so that no limit of a guest's own choice lets it grow. ENOMEM.
Status charge_ipc_memory(size_t bytes);
void release_ipc_memory(size_t bytes);
inline constexpr size_t kMostIpcMemory = 64 << 20;

/// CLOCK_REALTIME in seconds, as these objects count.
int64_t ipc_now();

/// Objects by identifier: an index, and above it a sequence number that tells reuses apart. Not
/// thread-safe.
template <typename T>
class IpcTable {
  public:
    static constexpr int32_t kMostObjects = 1 << 15;  // IPCMNI

    /// Null: none, or one that is about to go.
    RefPtr<T> find_key(int32_t key) const {
        for (const auto& object : slots_) {
            if (object && object->permissions.key == key && key != IPC_PRIVATE) {
                return object;
            }
        }
        return nullptr;
    }
    /// EINVAL.
    Result<RefPtr<T>> find(int32_t id) const {
        const RefPtr<T> object = id < 0 ? nullptr : at(id % kMostObjects);
        if (!object || object->id != id) {
            return Errno(EINVAL);
        }
        return object;
    }
    /// By index, as SHM_STAT and its like count. Null: a hole.
    RefPtr<T> at(int32_t index) const {
        return index >= 0 && static_cast<size_t>(index) < slots_.size()
                   ? slots_[static_cast<size_t>(index)]
                   : nullptr;
    }
    /// Gives `object` its identifier. The caller has seen to it that there are fewer than
    /// kMostObjects.
    void insert(RefPtr<T> object) {
        // Linux walks on through the indices so that an identifier is not soon used again, but
        // stays within one and a half times of what is in use.
        const int32_t end = std::min<int32_t>(
            std::max<int32_t>(static_cast<int32_t>(count_) * 3 / 2, 64), kMostObjects);
        int32_t index = last_ + 1;
        for (;; index++) {
            if (index >= end) {
                index = 0;
                sequence_ = (sequence_ + 1) & 0x7fff;
            }
            if (!at(index)) {
                break;
            }
        }
        last_ = index;
        if (slots_.size() <= static_cast<size_t>(index)) {
            slots_.resize(static_cast<size_t>(index) + 1);
        }
        object->id = sequence_ * kMostObjects + index;
        slots_[static_cast<size_t>(index)] = std::move(object);
        count_++;
    }
    /// The caller holds a reference of its own.
    void remove(T& object) {
        slots_[static_cast<size_t>(object.id % kMostObjects)] = nullptr;
        count_--;
        object.removed = true;
        while (!slots_.empty() && !slots_.back()) {
            slots_.pop_back();
        }
    }
    size_t count() const { return count_; }
    /// The highest index in use; 0 also when there is none, as IPC_INFO wants it.
    int32_t highest() const { return slots_.empty() ? 0 : static_cast<int32_t>(slots_.size()) - 1; }
    const std::vector<RefPtr<T>>& slots() const { return slots_; }

    /// shmget(2), semget(2), msgget(2): `check(object)` is the kind's own look at one that exists,
    /// `create()` makes and inserts another.
    template <typename Check, typename Create>
    Result<int32_t> get(const Credentials& who, int32_t key, uint32_t flags, Check check,
                        Create create) {
        if (key == IPC_PRIVATE) {
            return create();
        }
        const RefPtr<T> object = find_key(key);
        if (!object) {
            return (flags & IPC_CREAT) != 0 ? create() : Result<int32_t>(Errno(ENOENT));
        }
        if ((flags & (IPC_CREAT | IPC_EXCL)) == (IPC_CREAT | IPC_EXCL)) {
            return Errno(EEXIST);
        }
        TRY(check(*object));
        TRY(object->permissions.check(who, flags));
        return object->id;
    }

  private:
    std::vector<RefPtr<T>> slots_;
    size_t count_ = 0;
    int32_t last_ = -1;
    int32_t sequence_ = 0;
};

}  // namespace moat::kernel
