#include "cri/cni/builtin_network.h"

#include <arpa/inet.h>
#include <fcntl.h>

#include <charconv>
#include <unordered_set>

#include "cri/base/files.h"
#include "cri/cni/netlink.h"
#include "cri/cni/netns.h"
#include "cri/store/database.h"
#include "kernel/base/cleanup.h"

namespace moat::cri {

namespace {

constexpr char kDefaultRange[] = "10.213.0.0/16";
constexpr char kRangeSetting[] = "pod_cidr";
/// Link-local (RFC 3927), on every host side: a pod only ever sees its own.
constexpr uint32_t kGateway = 0xa9fe0101;

/// IFNAMSIZ leaves 15 characters; 10 hex digits of a random id do not meet in practice, and a veth
/// that is there already fails the ADD rather than being shared.
std::string host_interface(const std::string& pod_id) { return "moat" + pod_id.substr(0, 10); }

}  // namespace

std::string ipv4_text(uint32_t address) {
    const in_addr wire{htonl(address)};
    char text[INET_ADDRSTRLEN];
    return inet_ntop(AF_INET, &wire, text, sizeof(text));
}

Result<Ipv4Range> parse_ipv4_range(const std::string& cidr) {
    const size_t slash = cidr.find('/');
    in_addr wire{};
    unsigned prefix = 0;
    if (slash == std::string::npos ||
        inet_pton(AF_INET, cidr.substr(0, slash).c_str(), &wire) != 1) {
        return invalid_argument("\"" + cidr + "\": not an IPv4 range such as 10.1.0.0/16");
    }
    const char* end = cidr.data() + cidr.size();
    const auto [stop, error] = std::from_chars(cidr.data() + slash + 1, end, prefix);
    if (error != std::errc() || stop != end || prefix < 16 || prefix > 30) {
        return invalid_argument("\"" + cidr + "\": prefix length: not from 16 to 30");
    }
    const uint32_t mask = ~uint32_t{0} << (32 - prefix);
    return Ipv4Range{ntohl(wire.s_addr) & mask, static_cast<uint8_t>(prefix)};
}

Status BuiltinNetwork::set_range(const std::string& cidr) {
    (void)TRY(parse_ipv4_range(cidr));
    return database_.run("INSERT OR REPLACE INTO settings (key, value) VALUES (?,?)", kRangeSetting,
                         cidr);
}

Result<uint32_t> BuiltinNetwork::allocate(const std::string& pod_id) {
    auto transaction = TRY(database_.begin());
    std::string cidr = kDefaultRange;
    TRY(transaction.query(
        "SELECT value FROM settings WHERE key=?", [&](const Row& row) { cidr = row.text(0); },
        kRangeSetting));
    const Ipv4Range range = TRY(parse_ipv4_range(cidr));
    std::unordered_set<std::string> used;
    std::string last;
    TRY(transaction.query("SELECT ip FROM addresses ORDER BY rowid",
                          [&](const Row& row) { used.insert(last = row.text(0)); }));
    // Go on behind the last one given out: a freed address rests as long as it can, so that what
    // still talks to the old pod does not reach a new one.
    const uint32_t count = (uint32_t{1} << (32 - range.prefix)) - 2;
    uint32_t start = 0;
    in_addr wire{};
    if (!last.empty() && inet_pton(AF_INET, last.c_str(), &wire) == 1) {
        start = (ntohl(wire.s_addr) - range.base) % count;
    }
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t address = range.base + 1 + (start + i) % count;
        const std::string text = ipv4_text(address);
        if (!used.contains(text)) {
            TRY(transaction.run("INSERT INTO addresses (ip, pod_id) VALUES (?,?)", text, pod_id));
            TRY(transaction.commit());
            return address;
        }
    }
    return Error(ENOSPC, "no address is free in " + cidr);
}

Result<std::string> BuiltinNetwork::add(const std::string& pod_id,
                                        const std::string& namespace_path) {
    const uint32_t address = TRY_STEP("built-in network", allocate(pod_id));
    Cleanup undo([&] { (void)remove(pod_id); });
    const std::string host = host_interface(pod_id);
    const ScopedFd pod_namespace(open(namespace_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!pod_namespace) {
        return Error::from_errno(errno, "open " + namespace_path);
    }
    Netlink node = TRY(Netlink::open());
    TRY_STEP("built-in network", node.add_veth(host, "eth0", pod_namespace.get()));
    TRY_STEP("built-in network", in_network_namespace(namespace_path, [&]() -> Status {
                 Netlink pod = TRY(Netlink::open());
                 TRY(pod.add_address("eth0", address, 32));
                 TRY(pod.set_up("eth0"));
                 TRY(pod.add_route("eth0", kGateway, 32, 0));
                 return pod.add_route("eth0", 0, 0, kGateway);
             }));
    TRY_STEP("built-in network", node.add_address(host, kGateway, 32));
    TRY_STEP("built-in network", node.set_up(host));
    TRY_STEP("built-in network", node.add_route(host, address, 32, 0));
    // Forwarding for what comes from this pod only; net.ipv4.ip_forward of the node stays as it is.
    const std::string forwarding = "/proc/sys/net/ipv4/conf/" + host + "/forwarding";
    const ScopedFd fd(open(forwarding.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + forwarding);
    }
    TRY(write_all(fd.get(), "1", forwarding));
    undo.release();
    return ipv4_text(address);
}

Status BuiltinNetwork::remove(const std::string& pod_id) {
    // The pair would go with the pod's namespace, but the namespace lives on as long as any process
    // is in it, and its route must not outlive the address.
    Netlink node = TRY(Netlink::open());
    const Status removed = node.remove_link(host_interface(pod_id));
    if (!removed.ok() && removed.error().code() != ENODEV) {
        return removed.error().within("built-in network");
    }
    return database_.run("DELETE FROM addresses WHERE pod_id=?", pod_id);
}

}  // namespace moat::cri
