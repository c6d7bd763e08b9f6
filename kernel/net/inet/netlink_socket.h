#pragma once

#include "kernel/net/inet/host_socket.h"

namespace moat::kernel {

/// NETLINK_ROUTE of the pod's network namespace, to look only: requests that change anything are
/// refused before the host sees them (rtnetlink(7)).
class NetlinkSocket final : public HostSocket {
  public:
    /// EPROTONOSUPPORT: any protocol but NETLINK_ROUTE.
    static Result<RefPtr<Socket>> make(Task& task, int type, int protocol, uint32_t flags);
    NetlinkSocket(ScopedFd fd, int type, uint32_t flags);
    ~NetlinkSocket() override;

    Status bind(Task& task, const SocketAddress& address) override;
    Status connect(Task& task, const SocketAddress& address) override;
    Status listen(Task& task, int backlog) override;
    Result<size_t> send(Task& task, SendRequest& request) override;
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;

  protected:
    bool may_send_control(int, int) const override { return false; }
    Status check_outgoing(const uint8_t* data, size_t size) const override;
    RefPtr<Socket> make_accepted(ScopedFd fd, uint32_t flags) override;
    Status set_own_option(Task& task, int level, int name,
                          const std::vector<uint8_t>& value) override;
    Result<std::vector<uint8_t>> get_own_option(Task& task, int level, int name,
                                                size_t size) override;
};

/// Whether `data` holds only requests that read (RTM_GET*), whole and within `size`. EPERM, EINVAL.
Status check_netlink_requests(const uint8_t* data, size_t size);

}  // namespace moat::kernel
