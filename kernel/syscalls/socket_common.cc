#include "kernel/syscalls/socket_common.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>

#include "kernel/task/block.h"

namespace moat::kernel {

namespace {

constexpr size_t kMaxControl = 20480;  // net.core.optmem_max
constexpr size_t kMaxFiles = 253;      // SCM_MAX_FD

/// Who a sender claims to be must be true, or it must be privileged (unix(7)).
Status check_claim(Task& task, const ucred& claim) {
    const CredentialsRef who = task.credentials();
    const bool pid = claim.pid == task.pid() || who->has_capability(CAP_SYS_ADMIN);
    const bool uid = claim.uid == who->uid || claim.uid == who->euid || claim.uid == who->suid ||
                     who->has_capability(CAP_SETUID);
    const bool gid = claim.gid == who->gid || claim.gid == who->egid || claim.gid == who->sgid ||
                     who->has_capability(CAP_SETGID);
    if (!pid || !uid || !gid) {
        return Errno(EPERM);
    }
    return {};
}

Status decode_one(Task& task, int level, int type, const uint8_t* data, size_t size,
                  Ancillary& ancillary) {
    if (level == SOL_SOCKET && type == SCM_RIGHTS) {
        const size_t count = size / sizeof(int32_t);
        if (ancillary.files.size() + count > kMaxFiles) {
            return Errno(EINVAL);
        }
        for (size_t i = 0; i < count; i++) {
            int32_t fd = -1;
            memcpy(&fd, data + i * sizeof fd, sizeof fd);
            ancillary.files.push_back(TRY(task.fds().get(Fd{fd})));
        }
        return {};
    }
    if (level == SOL_SOCKET && type == SCM_CREDENTIALS) {
        ucred claim{};
        if (size != sizeof claim) {
            return Errno(EINVAL);
        }
        memcpy(&claim, data, sizeof claim);
        TRY(check_claim(task, claim));
        ancillary.credentials =
            PeerCredentials{claim.pid, claim.uid, claim.gid, &task.pid_namespace()};
        return {};
    }
    ancillary.other.push_back({level, type, {data, data + size}});
    return {};
}

/// Lays control messages into a guest's buffer of a given size.
class ControlWriter {
  public:
    ControlWriter(Task& task, UserPtr<uint8_t> at, size_t size)
        : task_(task), at_(at), size_(at ? size : 0) {}

    size_t used() const { return used_; }
    /// Payload bytes for which there is room.
    size_t room() const { return size_ - used_ > CMSG_LEN(0) ? size_ - used_ - CMSG_LEN(0) : 0; }
    /// False: cut off (MSG_CTRUNC).
    Result<bool> write(int level, int type, const void* data, size_t size) {
        if (size_ - used_ < sizeof(cmsghdr)) {
            return false;
        }
        const size_t fits = std::min(size, room());
        std::vector<uint8_t> bytes(CMSG_LEN(0) + fits);
        cmsghdr header{};
        header.cmsg_len = bytes.size();
        header.cmsg_level = level;
        header.cmsg_type = type;
        memcpy(bytes.data(), &header, sizeof header);
        memcpy(bytes.data() + CMSG_LEN(0), data, fits);
        TRY(task_.copy_out_bytes(at_.address() + used_, bytes.data(), bytes.size()));
        used_ = std::min(size_, used_ + CMSG_SPACE(fits));
        return fits == size;
    }

  private:
    Task& task_;
    UserPtr<uint8_t> at_;
    size_t size_;
    size_t used_ = 0;
};

}  // namespace

Result<RefPtr<Socket>> get_socket(Task& task, Fd fd) {
    const auto file = TRY(task.fds().get(fd));
    if (file->is_path_only()) {
        return Errno(EBADF);
    }
    auto* const socket = dynamic_cast<Socket*>(file.get());
    if (socket == nullptr) {
        return Errno(ENOTSOCK);
    }
    return RefPtr<Socket>(socket);
}

Result<SocketAddress> copy_in_address(Task& task, UserPtr<const uint8_t> address, int size) {
    SocketAddress result;
    if (size < 0 || static_cast<size_t>(size) > sizeof result.bytes) {
        return Errno(EINVAL);
    }
    TRY(task.copy_in_bytes(result.bytes, address.address(), static_cast<size_t>(size)));
    result.size = static_cast<uint32_t>(size);
    return result;
}

Status copy_out_address(Task& task, const SocketAddress& from, UserPtr<uint8_t> address,
                        UserPtr<int32_t> size) {
    if (!address) {
        return {};
    }
    const int32_t room = TRY(task.copy_in(size.cast<const int32_t>()));
    if (room < 0) {
        return Errno(EINVAL);
    }
    const size_t fits = std::min<size_t>(static_cast<size_t>(room), from.size);
    TRY(task.copy_out_bytes(address.address(), from.bytes, fits));
    return task.copy_out(size, static_cast<int32_t>(from.size));
}

Result<Ancillary> copy_in_control(Task& task, UserPtr<const uint8_t> control, size_t size) {
    Ancillary ancillary;
    if (!control || size == 0) {
        return ancillary;
    }
    if (size > kMaxControl) {
        return Errno(ENOBUFS);
    }
    const std::vector<uint8_t> bytes = TRY(task.copy_in_array(control, size));
    size_t at = 0;
    while (size - at >= sizeof(cmsghdr)) {
        cmsghdr header;
        memcpy(&header, bytes.data() + at, sizeof header);
        if (header.cmsg_len < sizeof header || header.cmsg_len > size - at) {
            return Errno(EINVAL);
        }
        TRY(decode_one(task, header.cmsg_level, header.cmsg_type, bytes.data() + at + CMSG_LEN(0),
                       header.cmsg_len - CMSG_LEN(0), ancillary));
        const size_t step = CMSG_ALIGN(header.cmsg_len);
        if (step >= size - at) {
            break;
        }
        at += step;
    }
    return ancillary;
}

Result<size_t> copy_out_control(Task& task, UserPtr<uint8_t> control, size_t size,
                                Ancillary& ancillary, CloseOnExec cloexec, int& flags) {
    ControlWriter writer(task, control, size);
    const auto note = [&](bool whole) { flags |= whole ? 0 : MSG_CTRUNC; };
    if (ancillary.credentials) {
        const ucred who = ancillary.credentials->seen_by(task);
        note(TRY(writer.write(SOL_SOCKET, SCM_CREDENTIALS, &who, sizeof who)));
    }
    for (const ControlMessage& m : ancillary.other) {
        note(TRY(writer.write(m.level, m.type, m.data.data(), m.data.size())));
    }
    if (!ancillary.files.empty()) {
        // As many as there is room for; the rest is closed (Linux: scm_detach_fds).
        const size_t count = std::min(ancillary.files.size(), writer.room() / sizeof(int32_t));
        std::vector<int32_t> numbers;
        for (size_t i = 0; i < count; i++) {
            const Result<Fd> fd = task.fds().install(std::move(ancillary.files[i]), cloexec,
                                                     task.rlimit(RLIMIT_NOFILE));
            if (!fd.ok()) {
                break;
            }
            numbers.push_back(to_integer(*fd));
        }
        if (!numbers.empty()) {
            note(TRY(writer.write(SOL_SOCKET, SCM_RIGHTS, numbers.data(),
                                  numbers.size() * sizeof(int32_t))));
        }
        note(numbers.size() == ancillary.files.size());
        ancillary.files.clear();
    }
    return writer.used();
}

Result<int64_t> run_socket_call(Task& task, std::shared_ptr<SocketCall> call) {
    const Result<int64_t> first = call->step(task);
    if (first.ok() || !(first.error() == EAGAIN)) {
        return first;
    }
    if (!call->may_wait) {
        return call->give_up(task, Errno(EAGAIN));
    }
    WaitQueue* const queue = call->socket->wait_queue();
    const PollMask events = call->events;
    const Deadline deadline = call->deadline;
    return block(task, {{queue, events}}, deadline,
                 [call = std::move(call)](Task& self, Wake wake) -> Result<int64_t> {
                     const Result<int64_t> again = call->step(self);
                     if (again.ok() || !(again.error() == EAGAIN)) {
                         return again;
                     }
                     switch (wake) {
                         case Wake::kReady:
                             return kBlocked;
                         case Wake::kTimeout:
                             return call->give_up(self, Errno(EAGAIN));
                         case Wake::kInterrupted:
                             break;
                     }
                     return call->give_up(self, call->socket->interrupted(call->deadline));
                 });
}

}  // namespace moat::kernel
