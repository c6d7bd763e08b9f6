#include "cri/cni/builtin_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <unordered_set>

#include "cri/base/fault_point.h"
#include "cri/base/files.h"
#include "cri/cni/netlink.h"
#include "cri/cni/netns.h"
#include "cri/store/database.h"

namespace moat::cri {

namespace {

constexpr char kDefaultRange[] = "10.213.0.0/16";
constexpr char kRangeSetting[] = "pod_cidr";
/// There while the node may have our netfilter table.
constexpr char kRulesSetting[] = "node_rules";
constexpr char kNodeRangesSetting[] = "pod_cidrs";
/// Link-local (RFC 3927), on every host side: a pod only ever sees its own.
constexpr uint32_t kGateway = 0xa9fe0101;

/// IFNAMSIZ leaves 15 characters; 10 hex digits of a random id do not meet in practice, and a veth
/// that is there already fails the ADD rather than being shared.
std::string host_interface(const std::string& pod_id) { return "moat" + pod_id.substr(0, 10); }

Status write_sysctl(const std::string& path, std::string_view value) {
    const ScopedFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    return write_all(fd.get(), value, path);
}

bool contains(const Ipv4Range& range, const std::string& address) {
    in_addr wire{};
    return inet_pton(AF_INET, address.c_str(), &wire) == 1 &&
           (ntohl(wire.s_addr) & (~uint32_t{0} << (32 - range.prefix))) == range.base;
}

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
    TRY(database_.run("INSERT OR REPLACE INTO settings (key, value) VALUES (?,?)", kRangeSetting,
                      cidr));
    const std::lock_guard lock(rules_mu_);
    rules_written_ = false;  // the next pod's ADD writes them, with its range
    return {};
}

Status BuiltinNetwork::set_node_ranges(const std::string& cidrs) {
    return database_.run("INSERT OR REPLACE INTO settings (key, value) VALUES (?,?)",
                         kNodeRangesSetting, cidrs);
}

Result<std::vector<std::string>> BuiltinNetwork::node_ranges() {
    std::string cidrs;
    TRY(database_.query(
        "SELECT value FROM settings WHERE key=?", [&](const Row& row) { cidrs = row.text(0); },
        kNodeRangesSetting));
    std::vector<std::string> ranges;
    for (size_t at = 0; at < cidrs.size();) {
        const size_t end = std::min(cidrs.find(',', at), cidrs.size());
        ranges.push_back(cidrs.substr(at, end - at));
        at = end + 1;
    }
    return ranges;
}

Result<std::string> BuiltinNetwork::range() {
    std::string cidr = kDefaultRange;
    TRY(database_.query(
        "SELECT value FROM settings WHERE key=?", [&](const Row& row) { cidr = row.text(0); },
        kRangeSetting));
    return cidr;
}

/// The caller holds rules_mu_.
Status BuiltinNetwork::write_rules() {
    NodeRules rules;
    std::vector<std::string> addresses;
    TRY(database_.query("SELECT ip FROM addresses",
                        [&](const Row& row) { addresses.push_back(row.text(0)); }));
    if (masquerade_ && !addresses.empty()) {
        const std::string cidr = TRY(range());
        const Ipv4Range current = TRY(parse_ipv4_range(cidr));
        rules.ranges.push_back(ipv4_text(current.base) + "/" + std::to_string(current.prefix));
        for (const std::string& address : addresses) {
            // Pods keep their addresses when the range changes.
            if (!contains(current, address)) {
                rules.ranges.push_back(address + "/32");
            }
        }
    }
    TRY(database_.query(
        "SELECT ip, protocol, host_ip, host_port, container_port FROM host_ports JOIN addresses "
        "USING (pod_id) ORDER BY host_ip DESC, host_port",
        [&](const Row& row) {
            rules.ports.push_back({row.text(0),
                                   {row.text(1), static_cast<int>(row.integer(3)),
                                    static_cast<int>(row.integer(4)), row.text(2)}});
        }));
    const bool empty = rules.ports.empty() && rules.ranges.empty();
    bool there = false;
    TRY(database_.query(
        "SELECT 1 FROM settings WHERE key=?", [&](const Row&) { there = true; }, kRulesSetting));
    if (empty && !there) {
        return {};
    }
    if (!there) {
        TRY(database_.run("INSERT OR REPLACE INTO settings (key, value) VALUES (?,'1')",
                          kRulesSetting));
    }
    const Status applied = apply_rules(rules, table_);
    if (applied.ok() && empty) {
        TRY(database_.run_freeing("DELETE FROM settings WHERE key=?", kRulesSetting));
    }
    rules_written_ = applied.ok();
    if (!applied.ok() && applied.error().code() == ENOENT && rules.ports.empty()) {
        // Without nft pods reach each other and the node, which is what they need most.
        static std::once_flag told;
        std::call_once(told, [&] {
            spdlog::warn("built-in network: pods do not reach the world outside: {}",
                         applied.error().message());
        });
        rules_written_ = true;
        return {};
    }
    return applied;
}

Status BuiltinNetwork::recover(const std::vector<std::string>& pods) {
    const std::unordered_set<std::string> known(pods.begin(), pods.end());
    std::unordered_set<std::string> strays;
    for (const char* table : {"addresses", "host_ports"}) {
        TRY(database_.query(std::string("SELECT DISTINCT pod_id FROM ") + table,
                            [&](const Row& row) {
                                if (!known.contains(row.text(0))) {
                                    strays.insert(row.text(0));
                                }
                            }));
    }
    for (const std::string& pod : strays) {
        spdlog::warn("built-in network: pod {} is not there any more: its address is freed", pod);
        TRY(remove(pod));
    }
    const std::lock_guard lock(rules_mu_);
    const Status written = write_rules();
    if (!written.ok() && written.error().code() != ENOENT) {
        // Pods run on with the rules that are there; the next pod's ADD tries again.
        spdlog::error("built-in network: {}", written.error().message());
    }
    return {};
}

Status BuiltinNetwork::reserve(const std::string& pod_id, const std::vector<PortMapping>& ports) {
    auto transaction = TRY(database_.begin());
    for (const PortMapping& port : ports) {
        // Every address of the node includes each single one.
        std::string holder;
        TRY(transaction.query(
            "SELECT pod_id FROM host_ports WHERE protocol=? AND host_port=? AND (host_ip=? OR "
            "host_ip='' OR ?='')",
            [&](const Row& row) { holder = row.text(0); }, port.protocol, port.host_port,
            port.host_ip, port.host_ip));
        if (!holder.empty()) {
            return wrong_state("host port " + std::to_string(port.host_port) + "/" + port.protocol +
                               ": pod " + holder + " has it");
        }
        TRY(transaction.run(
            "INSERT INTO host_ports (protocol, host_ip, host_port, container_port, "
            "pod_id) VALUES (?,?,?,?,?)",
            port.protocol, port.host_ip, port.host_port, port.container_port, pod_id));
    }
    return transaction.commit();
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
                                        const std::string& namespace_path,
                                        const std::vector<PortMapping>& ports) {
    auto address = connect(pod_id, namespace_path, ports);
    if (!address.ok()) {
        (void)remove(pod_id);
        return address.error().within("built-in network");
    }
    return address;
}

Result<std::string> BuiltinNetwork::connect(const std::string& pod_id,
                                            const std::string& namespace_path,
                                            const std::vector<PortMapping>& ports) {
    const uint32_t address = TRY(allocate(pod_id));
    fault_point("network.address taken");
    const std::string host = host_interface(pod_id);
    const ScopedFd pod_namespace(open(namespace_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!pod_namespace) {
        return Error::from_errno(errno, "open " + namespace_path);
    }
    Netlink node = TRY(Netlink::open());
    TRY(node.add_veth(host, "eth0", pod_namespace.get()));
    fault_point("network.veth made");
    TRY(in_network_namespace(namespace_path, [&]() -> Status {
        Netlink pod = TRY(Netlink::open());
        TRY(pod.add_address("eth0", address, 32));
        TRY(pod.set_up("eth0"));
        TRY(pod.add_route("eth0", kGateway, 32, 0));
        return pod.add_route("eth0", 0, 0, kGateway);
    }));
    TRY(node.add_address(host, kGateway, 32));
    TRY(node.set_up(host));
    TRY(node.add_route(host, address, 32, 0));
    fault_point("network.before its rules");
    // Forwarding for what comes from this pod only; net.ipv4.ip_forward of the node stays as it is.
    const std::string sysctls = "/proc/sys/net/ipv4/conf/" + host;
    TRY(write_sysctl(sysctls + "/forwarding", "1"));
    {
        const std::lock_guard lock(rules_mu_);
        if (!ports.empty() || !rules_written_) {
            TRY(reserve(pod_id, ports));
            TRY(write_rules());
        }
    }
    fault_point("network.rules written");
    if (!ports.empty()) {
        // For what comes from the node's loopback; only now, behind the rules that keep pods from
        // sending to it.
        TRY(write_sysctl(sysctls + "/route_localnet", "1"));
    }
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
    fault_point("network.veth gone");
    bool has_ports = false;
    TRY(database_.query(
        "SELECT 1 FROM host_ports WHERE pod_id=? LIMIT 1", [&](const Row&) { has_ports = true; },
        pod_id));
    if (has_ports) {
        // The rules go before the address is free for another pod.
        const std::lock_guard lock(rules_mu_);
        TRY(database_.run_freeing("DELETE FROM host_ports WHERE pod_id=?", pod_id));
        TRY_STEP("built-in network", write_rules());
    }
    return database_.run_freeing("DELETE FROM addresses WHERE pod_id=?", pod_id);
}

}  // namespace moat::cri
