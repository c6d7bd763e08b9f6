#pragma once

#include <map>
#include <utility>

#include "kernel/base/mutex.h"
#include "kernel/net/socket.h"
#include "kernel/net/unix/endpoint.h"

namespace moat::kernel {

/// The description of a unix socket.
class UnixSocket final : public Socket {
  public:
    /// ESOCKTNOSUPPORT, EPROTONOSUPPORT.
    static Result<RefPtr<Socket>> make(Task& task, int type, int protocol, uint32_t flags);
    static Result<std::pair<RefPtr<Socket>, RefPtr<Socket>>> make_pair(Task& task, int type,
                                                                       int protocol,
                                                                       uint32_t flags);
    UnixSocket(RefPtr<UnixEndpoint> end, uint32_t flags);
    ~UnixSocket() override;

    UnixEndpoint& end() { return *end_; }

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
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;
    PollMask poll() override { return end_->poll(); }
    WaitQueue* wait_queue() override { return &end_->queue(); }

  protected:
    Status set_own_option(Task& task, int level, int name,
                          const std::vector<uint8_t>& value) override;
    Result<std::vector<uint8_t>> get_own_option(Task& task, int level, int name,
                                                size_t size) override;

  private:
    const RefPtr<UnixEndpoint> end_;
    Mutex<LockRank::kSocket> mu_;
    std::map<int, int32_t> options_ GUARDED_BY(mu_);  // those that only have to be remembered
};

}  // namespace moat::kernel
