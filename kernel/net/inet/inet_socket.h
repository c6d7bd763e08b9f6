#pragma once

#include "kernel/net/inet/host_socket.h"

namespace moat::kernel {

/// TCP, UDP and ping sockets of the pod's network namespace (ip(7), ipv6(7)).
class InetSocket final : public HostSocket {
  public:
    /// EPERM: raw sockets (not built; documented); EPROTONOSUPPORT, ESOCKTNOSUPPORT, and what the
    /// host says.
    static Result<RefPtr<Socket>> make(Task& task, int domain, int type, int protocol,
                                       uint32_t flags);
    InetSocket(ScopedFd fd, int domain, int type, int protocol, uint32_t flags);
    ~InetSocket() override;

    Status bind(Task& task, const SocketAddress& address) override;
    Status connect(Task& task, const SocketAddress& address) override;
    Result<size_t> send(Task& task, SendRequest& request) override;
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;

  protected:
    bool may_send_control(int level, int type) const override;
    RefPtr<Socket> make_accepted(ScopedFd fd, uint32_t flags) override;
    Status set_own_option(Task& task, int level, int name,
                          const std::vector<uint8_t>& value) override;
    Result<std::vector<uint8_t>> get_own_option(Task& task, int level, int name,
                                                size_t size) override;

  private:
    Status check_address(const SocketAddress& address) const;
};

}  // namespace moat::kernel
