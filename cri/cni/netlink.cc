#include "cri/cni/netlink.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace moat::cri {

/// One message under construction: header, family body, attributes.
class Netlink::Request {
  public:
    template <typename Body>
    Request(uint16_t type, uint16_t flags, const Body& body) {
        data_.resize(NLMSG_SPACE(sizeof(Body)));
        auto* header = reinterpret_cast<nlmsghdr*>(data_.data());
        header->nlmsg_type = type;
        header->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
        std::memcpy(NLMSG_DATA(header), &body, sizeof(Body));
    }
    void attribute(uint16_t type, const void* value, size_t size) {
        const size_t at = data_.size();
        data_.resize(at + RTA_SPACE(size));
        auto* attribute = reinterpret_cast<rtattr*>(data_.data() + at);
        attribute->rta_type = type;
        attribute->rta_len = static_cast<unsigned short>(RTA_LENGTH(size));
        if (size != 0) {
            std::memcpy(RTA_DATA(attribute), value, size);
        }
    }
    void text(uint16_t type, const std::string& value) {
        attribute(type, value.c_str(), value.size() + 1);
    }
    /// Begins an attribute that holds others; end() with what this returns closes it.
    size_t begin(uint16_t type) {
        const size_t at = data_.size();
        attribute(type, nullptr, 0);
        return at;
    }
    void end(size_t at) {
        reinterpret_cast<rtattr*>(data_.data() + at)->rta_len =
            static_cast<unsigned short>(data_.size() - at);
    }
    /// Plain bytes inside a nested attribute: VETH_INFO_PEER begins with an ifinfomsg.
    void bytes(const void* value, size_t size) {
        const size_t at = data_.size();
        data_.resize(at + NLMSG_ALIGN(size));
        std::memcpy(data_.data() + at, value, size);
    }
    std::vector<char>& finish(uint32_t sequence) {
        auto* header = reinterpret_cast<nlmsghdr*>(data_.data());
        header->nlmsg_len = static_cast<uint32_t>(data_.size());
        header->nlmsg_seq = sequence;
        return data_;
    }

  private:
    std::vector<char> data_;
};

Result<Netlink> Netlink::open() {
    ScopedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd) {
        return Error::from_errno(errno, "open a netlink socket");
    }
    return Netlink(std::move(fd));
}

Status Netlink::send(Request& request, const std::string& what) {
    const uint32_t sequence = ++sequence_;
    const auto& data = request.finish(sequence);
    if (::send(fd_.get(), data.data(), data.size(), 0) < 0) {
        return Error::from_errno(errno, what);
    }
    alignas(nlmsghdr) char answer[8192];
    for (;;) {
        const ssize_t n = recv(fd_.get(), answer, sizeof(answer), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, what);
        }
        auto left = static_cast<uint32_t>(n);
        for (auto* header = reinterpret_cast<nlmsghdr*>(answer); NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_seq != sequence || header->nlmsg_type != NLMSG_ERROR) {
                continue;
            }
            const int error = -static_cast<nlmsgerr*>(NLMSG_DATA(header))->error;
            return error == 0 ? Status() : Status(Error::from_errno(error, what));
        }
    }
}

namespace {

Result<int> link_index(const std::string& name) {
    const auto index = static_cast<int>(if_nametoindex(name.c_str()));
    if (index == 0) {
        return Error::from_errno(ENODEV, "interface " + name);
    }
    return index;
}

}  // namespace

Status Netlink::add_veth(const std::string& name, const std::string& peer, int peer_namespace_fd) {
    const ifinfomsg info{};
    Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, info);
    request.text(IFLA_IFNAME, name);
    const size_t link_info = request.begin(IFLA_LINKINFO);
    request.text(IFLA_INFO_KIND, "veth");
    const size_t data = request.begin(IFLA_INFO_DATA);
    const size_t peer_info = request.begin(VETH_INFO_PEER);
    request.bytes(&info, sizeof(info));
    request.text(IFLA_IFNAME, peer);
    request.attribute(IFLA_NET_NS_FD, &peer_namespace_fd, sizeof(peer_namespace_fd));
    request.end(peer_info);
    request.end(data);
    request.end(link_info);
    return send(request, "add veth " + name);
}

Status Netlink::remove_link(const std::string& name) {
    ifinfomsg info{};
    info.ifi_index = TRY(link_index(name));
    Request request(RTM_DELLINK, 0, info);
    return send(request, "remove interface " + name);
}

Status Netlink::set_up(const std::string& name) {
    ifinfomsg info{};
    info.ifi_index = TRY(link_index(name));
    info.ifi_flags = IFF_UP;
    info.ifi_change = IFF_UP;
    Request request(RTM_NEWLINK, 0, info);
    return send(request, "bring " + name + " up");
}

Status Netlink::add_address(const std::string& name, uint32_t address, uint8_t prefix) {
    ifaddrmsg info{};
    info.ifa_family = AF_INET;
    info.ifa_prefixlen = prefix;
    info.ifa_index = static_cast<uint32_t>(TRY(link_index(name)));
    Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, info);
    const uint32_t wire = htonl(address);
    request.attribute(IFA_LOCAL, &wire, sizeof(wire));
    request.attribute(IFA_ADDRESS, &wire, sizeof(wire));
    return send(request, "give " + name + " an address");
}

Status Netlink::add_route(const std::string& name, uint32_t destination, uint8_t prefix,
                          uint32_t gateway) {
    rtmsg info{};
    info.rtm_family = AF_INET;
    info.rtm_dst_len = prefix;
    info.rtm_table = RT_TABLE_MAIN;
    info.rtm_protocol = RTPROT_STATIC;
    info.rtm_scope = gateway == 0 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    info.rtm_type = RTN_UNICAST;
    Request request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, info);
    const uint32_t wire = htonl(destination);
    if (prefix != 0) {
        request.attribute(RTA_DST, &wire, sizeof(wire));
    }
    const int index = TRY(link_index(name));
    request.attribute(RTA_OIF, &index, sizeof(index));
    const uint32_t via = htonl(gateway);
    if (gateway != 0) {
        request.attribute(RTA_GATEWAY, &via, sizeof(via));
    }
    return send(request, "add a route by " + name);
}

Status Netlink::dump(Request& request, const std::string& what,
                     const std::function<void(const nlmsghdr&)>& visit) {
    const uint32_t sequence = ++sequence_;
    const auto& data = request.finish(sequence);
    if (::send(fd_.get(), data.data(), data.size(), 0) < 0) {
        return Error::from_errno(errno, what);
    }
    // The kernel fills at most 32 KiB at once (net/netlink/af_netlink.c: netlink_dump).
    std::vector<uint64_t> buffer((32 << 10) / sizeof(uint64_t));
    for (;;) {
        const ssize_t n = recv(fd_.get(), buffer.data(), buffer.size() * sizeof(uint64_t), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, what);
        }
        auto left = static_cast<uint32_t>(n);
        for (auto* header = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_seq != sequence) {
                continue;
            }
            if (header->nlmsg_type == NLMSG_DONE) {
                return {};
            }
            if (header->nlmsg_type == NLMSG_ERROR) {
                const int error = -static_cast<nlmsgerr*>(NLMSG_DATA(header))->error;
                return error == 0 ? Status() : Status(Error::from_errno(error, what));
            }
            visit(*header);
        }
    }
}

namespace {

/// Calls `visit(type, data, size)` for each attribute behind the message's body.
template <typename Body, typename F>
void each_attribute(const nlmsghdr& header, F visit) {
    if (header.nlmsg_len < NLMSG_SPACE(sizeof(Body))) {
        return;
    }
    auto left = static_cast<int>(header.nlmsg_len - NLMSG_SPACE(sizeof(Body)));
    const char* at = reinterpret_cast<const char*>(&header) + NLMSG_SPACE(sizeof(Body));
    for (auto* a = reinterpret_cast<const rtattr*>(at); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        visit(a->rta_type, static_cast<const char*>(RTA_DATA(a)), RTA_PAYLOAD(a));
    }
}

}  // namespace

Result<std::vector<LinkFigures>> Netlink::links() {
    std::vector<LinkFigures> links;
    Request request(RTM_GETLINK, NLM_F_DUMP, ifinfomsg{});
    TRY(dump(request, "list the interfaces", [&](const nlmsghdr& header) {
        if (header.nlmsg_type != RTM_NEWLINK || header.nlmsg_len < NLMSG_SPACE(sizeof(ifinfomsg))) {
            return;
        }
        ifinfomsg info;
        std::memcpy(&info, NLMSG_DATA(&header), sizeof(info));
        LinkFigures link;
        link.index = info.ifi_index;
        link.loopback = (info.ifi_flags & IFF_LOOPBACK) != 0;
        each_attribute<ifinfomsg>(header, [&](int type, const char* data, size_t size) {
            if (type == IFLA_IFNAME && size > 0) {
                link.name.assign(data, strnlen(data, size));
            } else if (type == IFLA_STATS64) {
                rtnl_link_stats64 stats{};
                std::memcpy(&stats, data, std::min(size, sizeof(stats)));
                link.rx_bytes = stats.rx_bytes;
                link.rx_packets = stats.rx_packets;
                link.rx_errors = stats.rx_errors;
                link.rx_dropped = stats.rx_dropped;
                link.tx_bytes = stats.tx_bytes;
                link.tx_packets = stats.tx_packets;
                link.tx_errors = stats.tx_errors;
                link.tx_dropped = stats.tx_dropped;
            }
        });
        links.push_back(std::move(link));
    }));
    return links;
}

Result<int> Netlink::default_link() {
    for (const unsigned char family : {AF_INET, AF_INET6}) {
        int found = 0;
        uint32_t best = UINT32_MAX;
        rtmsg any{};
        any.rtm_family = family;
        Request request(RTM_GETROUTE, NLM_F_DUMP, any);
        TRY(dump(request, "list the routes", [&](const nlmsghdr& header) {
            if (header.nlmsg_type != RTM_NEWROUTE ||
                header.nlmsg_len < NLMSG_SPACE(sizeof(rtmsg))) {
                return;
            }
            rtmsg route;
            std::memcpy(&route, NLMSG_DATA(&header), sizeof(route));
            // The dump has every table; "local" and "unreachable" entries lead nowhere.
            if (route.rtm_dst_len != 0 || route.rtm_type != RTN_UNICAST) {
                return;
            }
            int link = 0;
            uint32_t priority = 0;
            each_attribute<rtmsg>(header, [&](int type, const char* data, size_t size) {
                if (type == RTA_OIF && size == sizeof(link)) {
                    std::memcpy(&link, data, sizeof(link));
                } else if (type == RTA_PRIORITY && size == sizeof(priority)) {
                    std::memcpy(&priority, data, sizeof(priority));
                }
            });
            if (link != 0 && (found == 0 || priority < best)) {
                found = link;
                best = priority;
            }
        }));
        if (found != 0) {
            return found;
        }
    }
    return 0;
}

}  // namespace moat::cri
