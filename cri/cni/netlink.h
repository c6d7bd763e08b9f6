#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

struct nlmsghdr;

namespace moat::cri {

/// An interface and what went through it since it was made (struct rtnl_link_stats64).
struct LinkFigures {
    std::string name;
    int index = 0;
    bool loopback = false;
    uint64_t rx_bytes = 0;
    uint64_t rx_packets = 0;
    uint64_t rx_errors = 0;
    uint64_t rx_dropped = 0;
    uint64_t tx_bytes = 0;
    uint64_t tx_packets = 0;
    uint64_t tx_errors = 0;
    uint64_t tx_dropped = 0;
};

/// A route netlink socket of the calling thread's network namespace (rtnetlink(7)): the few
/// requests that the built-in pod network is made of. IPv4 addresses are in host byte order.
class Netlink {
  public:
    static Result<Netlink> open();

    /// A veth pair: `name` here, `peer` in the namespace behind `peer_namespace_fd`.
    Status add_veth(const std::string& name, const std::string& peer, int peer_namespace_fd);
    /// ENODEV when it is not there.
    Status remove_link(const std::string& name);
    Status set_up(const std::string& name);
    Status add_address(const std::string& name, uint32_t address, uint8_t prefix);
    /// `gateway` 0: the destination is on the link itself.
    Status add_route(const std::string& name, uint32_t destination, uint8_t prefix,
                     uint32_t gateway);

    Result<std::vector<LinkFigures>> links();
    /// The interface that the default route leads to, IPv4's first; 0: there is none.
    Result<int> default_link();

  private:
    class Request;
    explicit Netlink(ScopedFd fd) : fd_(std::move(fd)) {}
    Status send(Request& request, const std::string& what);
    /// A request with NLM_F_DUMP: calls `visit` with each message of the answer, which is only
    /// valid during the call.
    Status dump(Request& request, const std::string& what,
                const std::function<void(const nlmsghdr&)>& visit);
    ScopedFd fd_;
    uint32_t sequence_ = 0;
};

}  // namespace moat::cri
