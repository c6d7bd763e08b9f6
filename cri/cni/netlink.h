#pragma once

#include <cstdint>
#include <string>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

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

  private:
    class Request;
    explicit Netlink(ScopedFd fd) : fd_(std::move(fd)) {}
    Status send(Request& request, const std::string& what);
    ScopedFd fd_;
    uint32_t sequence_ = 0;
};

}  // namespace moat::cri
