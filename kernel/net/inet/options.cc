#include "kernel/net/inet/options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/time.h>

// Where libc's headers lag behind linux/{in,in6,tcp,udp}.h, which cannot be included beside them.
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace moat::kernel {

namespace {

constexpr int kOriginalDestination = 80;  // SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: service meshes
constexpr size_t kInt = sizeof(int);
constexpr auto kGet = OptionAccess::kGet;
constexpr auto kSet = OptionAccess::kSet;
constexpr auto kBoth = OptionAccess::kBoth;

// Not here on purpose: whatever loads code (SO_ATTACH_FILTER, SO_ATTACH_BPF), names the host
// (SO_COOKIE, SO_INCOMING_NAPI_ID), busy-polls, or is answered by the sentry itself (SO_TYPE,
// SO_RCVTIMEO, SO_LINGER).  clang-format off
constexpr HostOption kOptions[] = {
    {SOL_SOCKET, SO_ACCEPTCONN, kGet, kInt},
    {SOL_SOCKET, SO_BINDTODEVICE, kBoth, 16},
    {SOL_SOCKET, SO_BROADCAST, kBoth, kInt},
    {SOL_SOCKET, SO_DONTROUTE, kBoth, kInt},
    {SOL_SOCKET, SO_ERROR, kGet, kInt},
    {SOL_SOCKET, SO_INCOMING_CPU, kGet, kInt},
    {SOL_SOCKET, SO_KEEPALIVE, kBoth, kInt},
    {SOL_SOCKET, SO_MARK, kGet, kInt},
    {SOL_SOCKET, SO_NO_CHECK, kBoth, kInt},
    {SOL_SOCKET, SO_OOBINLINE, kBoth, kInt},
    {SOL_SOCKET, SO_PRIORITY, kBoth, kInt},
    {SOL_SOCKET, SO_RCVBUF, kBoth, kInt},
    {SOL_SOCKET, SO_RCVLOWAT, kBoth, kInt},
    {SOL_SOCKET, SO_REUSEADDR, kBoth, kInt},
    {SOL_SOCKET, SO_REUSEPORT, kBoth, kInt},
    {SOL_SOCKET, SO_RXQ_OVFL, kBoth, kInt},
    {SOL_SOCKET, SO_SNDBUF, kBoth, kInt},
    {SOL_SOCKET, SO_SNDLOWAT, kGet, kInt},
    {SOL_SOCKET, SO_TIMESTAMP, kBoth, kInt},
    {SOL_SOCKET, SO_TIMESTAMPNS, kBoth, kInt},

    {IPPROTO_TCP, TCP_CONGESTION, kBoth, 16},
    {IPPROTO_TCP, TCP_CORK, kBoth, kInt},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, kBoth, kInt},
    {IPPROTO_TCP, TCP_FASTOPEN, kBoth, kInt},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, kBoth, kInt},
    {IPPROTO_TCP, TCP_INFO, kGet, 512},
    {IPPROTO_TCP, TCP_INQ, kBoth, kInt},
    {IPPROTO_TCP, TCP_KEEPCNT, kBoth, kInt},
    {IPPROTO_TCP, TCP_KEEPIDLE, kBoth, kInt},
    {IPPROTO_TCP, TCP_KEEPINTVL, kBoth, kInt},
    {IPPROTO_TCP, TCP_LINGER2, kBoth, kInt},
    {IPPROTO_TCP, TCP_MAXSEG, kBoth, kInt},
    {IPPROTO_TCP, TCP_NODELAY, kBoth, kInt},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, kBoth, kInt},
    {IPPROTO_TCP, TCP_QUICKACK, kBoth, kInt},
    {IPPROTO_TCP, TCP_SYNCNT, kBoth, kInt},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, kBoth, kInt},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, kBoth, kInt},

    {IPPROTO_UDP, UDP_CORK, kBoth, kInt},
    {IPPROTO_UDP, UDP_GRO, kBoth, kInt},
    {IPPROTO_UDP, UDP_SEGMENT, kBoth, kInt},

    {IPPROTO_IP, IP_ADD_MEMBERSHIP, kSet, sizeof(ip_mreqn)},
    {IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, kSet, sizeof(ip_mreq_source)},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, kBoth, kInt},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, kSet, sizeof(ip_mreqn)},
    {IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, kSet, sizeof(ip_mreq_source)},
    {IPPROTO_IP, IP_FREEBIND, kBoth, kInt},
    {IPPROTO_IP, IP_MTU, kGet, kInt},
    {IPPROTO_IP, IP_MTU_DISCOVER, kBoth, kInt},
    {IPPROTO_IP, IP_MULTICAST_ALL, kBoth, kInt},
    {IPPROTO_IP, IP_MULTICAST_IF, kBoth, sizeof(ip_mreqn)},
    {IPPROTO_IP, IP_MULTICAST_LOOP, kBoth, kInt},
    {IPPROTO_IP, IP_MULTICAST_TTL, kBoth, kInt},
    {IPPROTO_IP, IP_PKTINFO, kBoth, kInt},
    {IPPROTO_IP, IP_RECVERR, kBoth, kInt},
    {IPPROTO_IP, IP_RECVORIGDSTADDR, kBoth, kInt},
    {IPPROTO_IP, IP_RECVTOS, kBoth, kInt},
    {IPPROTO_IP, IP_RECVTTL, kBoth, kInt},
    {IPPROTO_IP, IP_TOS, kBoth, kInt},
    {IPPROTO_IP, IP_TTL, kBoth, kInt},
    {IPPROTO_IP, IP_UNICAST_IF, kBoth, kInt},
    {IPPROTO_IP, kOriginalDestination, kGet, sizeof(sockaddr_in)},

    {IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, kSet, sizeof(ipv6_mreq)},
    {IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, kSet, sizeof(ipv6_mreq)},
    {IPPROTO_IPV6, IPV6_DONTFRAG, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_FREEBIND, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_MTU, kGet, kInt},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_MULTICAST_IF, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_RECVERR, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_TCLASS, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, kBoth, kInt},
    {IPPROTO_IPV6, IPV6_V6ONLY, kBoth, kInt},
    {IPPROTO_IPV6, kOriginalDestination, kGet, sizeof(sockaddr_in6)},
};
// clang-format on

}  // namespace

const HostOption* find_inet_option(int level, int name) {
    for (const HostOption& option : kOptions) {
        if (option.level == level && option.name == name) {
            return &option;
        }
    }
    return nullptr;
}

bool is_inet_control(int level, int type) {
    switch (level) {
        case IPPROTO_IP:
            return type == IP_PKTINFO || type == IP_TOS || type == IP_TTL;
        case IPPROTO_IPV6:
            return type == IPV6_PKTINFO || type == IPV6_HOPLIMIT || type == IPV6_TCLASS;
        case IPPROTO_UDP:
            return type == UDP_SEGMENT;
        default:
            return false;
    }
}

}  // namespace moat::kernel
