#pragma once

// What the handlers of sockets have in common.

#include <cstdint>
#include <memory>

#include "kernel/fs/fd_table.h"
#include "kernel/net/socket.h"
#include "kernel/task/task.h"

namespace moat::kernel {

/// EBADF, ENOTSOCK.
Result<RefPtr<Socket>> get_socket(Task& task, Fd fd);
/// EINVAL: too long or negative; EFAULT.
Result<SocketAddress> copy_in_address(Task& task, UserPtr<const uint8_t> address, int size);
/// Writes what fits into the guest's buffer of `*size` bytes, and the real size. Null `address`:
/// nothing. EINVAL: a negative size.
Status copy_out_address(Task& task, const SocketAddress& from, UserPtr<uint8_t> address,
                        UserPtr<int32_t> size);

/// The control part of sendmsg(2). EINVAL: malformed; EBADF, ENOBUFS, EPERM (credentials of
/// another).
Result<Ancillary> copy_in_control(Task& task, UserPtr<const uint8_t> control, size_t size);
/// The control part of recvmsg(2): writes what fits, installs descriptors, adds MSG_CTRUNC to
/// `flags`. Returns the bytes used.
Result<size_t> copy_out_control(Task& task, UserPtr<uint8_t> control, size_t size,
                                Ancillary& ancillary, CloseOnExec cloexec, int& flags);

/// A call on a socket that may have to wait more than once before it is through.
class SocketCall {
  public:
    explicit SocketCall(RefPtr<Socket> s) : socket(std::move(s)) {}
    virtual ~SocketCall() = default;
    /// EAGAIN: has to wait (and may have done a part).
    virtual Result<int64_t> step(Task& task) = 0;
    /// It will not be waited any more: what was done so far, or `error`.
    virtual Result<int64_t> give_up([[maybe_unused]] Task& task, Errno error) { return error; }

    RefPtr<Socket> socket;
    bool may_wait = true;
    PollMask events = 0;
    Deadline deadline;
};
/// Steps at once, and by a continuation as often as it takes.
Result<int64_t> run_socket_call(Task& task, std::shared_ptr<SocketCall> call);

}  // namespace moat::kernel
