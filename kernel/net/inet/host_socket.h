#pragma once

#include <memory>

#include "kernel/base/mutex.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/net/host_poller.h"
#include "kernel/net/socket.h"

namespace moat::kernel {

/// A socket of the network namespace that the sentry lives in, always non-blocking. What guests may
/// do with it is decided by the subclasses, before the host sees anything.
class HostSocket : public Socket {
  public:
    ~HostSocket() override;

    Status bind(Task& task, const SocketAddress& address) override;
    Status connect(Task& task, const SocketAddress& address) override;
    Status finish_connect(Task& task) override;
    Status listen(Task& task, int backlog) override;
    Result<RefPtr<Socket>> accept(Task& task, uint32_t flags) override;
    Status shutdown(Task& task, int how) override;
    Result<SocketAddress> local_address(Task& task) override;
    Result<SocketAddress> peer_address(Task& task) override;
    Result<size_t> send(Task& task, SendRequest& request) override;
    Result<size_t> receive(Task& task, ReceiveRequest& request) override;
    PollMask poll() override { return poll_host(fd_.get()); }
    WaitQueue* wait_queue() override;

  protected:
    /// `fd` is non-blocking and close-on-exec.
    HostSocket(ScopedFd fd, int domain, int type, int protocol, uint32_t flags);

    int fd() const { return fd_.get(); }
    /// Which control messages guests may send.
    virtual bool may_send_control(int level, int type) const = 0;
    /// Looks at what is about to be sent. Any error is the guest's.
    virtual Status check_outgoing([[maybe_unused]] const uint8_t* data,
                                  [[maybe_unused]] size_t size) const {
        return {};
    }
    /// The description of an accepted connection.
    virtual RefPtr<Socket> make_accepted(ScopedFd fd, uint32_t flags) = 0;
    Status set_host_option(int level, int name, const std::vector<uint8_t>& value);
    Result<std::vector<uint8_t>> get_host_option(int level, int name, size_t size);

  private:
    const ScopedFd fd_;
    Mutex<LockRank::kSocket> mu_;
    RefPtr<HostWatch> watch_ GUARDED_BY(mu_);  // made when somebody first waits
    WaitQueue unwatched_;                      // stands in where the host cannot watch
};

}  // namespace moat::kernel
