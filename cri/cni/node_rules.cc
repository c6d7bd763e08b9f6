#include "cri/cni/node_rules.h"

#include <unistd.h>

#include <set>

#include "cri/base/process.h"
#include "cri/base/sha256.h"

namespace moat::cri {

namespace {

/// A transaction of the kernel; what is slow is another program that holds its lock.
constexpr std::chrono::seconds kTimeout{20};

std::string nft_program() {
    for (const char* path : {"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"}) {
        if (access(path, X_OK) == 0) {
            return path;
        }
    }
    return "";
}

}  // namespace

std::string nft_table(const std::string& root) {
    return "moat_" + Sha256::of(root).substr(7, 8);  // behind "sha256:"
}

std::string nft_script(const NodeRules& rules, const std::string& table) {
    // "add" so that the "delete" cannot fail; a table that is gone takes its chains along.
    std::string script = "add table ip " + table + "\ndelete table ip " + table + "\n";
    if (rules.ports.empty() && rules.ranges.empty()) {
        return script;
    }
    std::string to_pods;
    std::string hairpins;
    std::set<std::string> targets;
    for (const NodeRules::Port& port : rules.ports) {
        const PortMapping& mapping = port.mapping;
        const std::string match =
            mapping.host_ip.empty() ? "" : "ip daddr " + mapping.host_ip + " ";
        to_pods += "    " + match + mapping.protocol + " dport " +
                   std::to_string(mapping.host_port) + " dnat to " + port.pod_ip + ":" +
                   std::to_string(mapping.container_port) + "\n";
        if (targets.insert(port.pod_ip).second) {
            hairpins +=
                "    ip saddr " + port.pod_ip + " ip daddr " + port.pod_ip + " masquerade\n";
        }
    }
    std::string outbound;
    for (const std::string& range : rules.ranges) {
        outbound += "    ip saddr " + range + " ip daddr != " + range +
                    " oifname != \"moat*\" masquerade\n";
    }
    script += "table ip " + table + " {\n";
    if (!rules.ports.empty()) {
        // route_localnet of the pods' interfaces lets the node's loopback reach them, and would let
        // them reach the node's loopback (CVE-2020-8558).
        script +=
            "  chain guard {\n    type filter hook prerouting priority -310; policy accept;\n"
            "    iifname \"moat*\" ip daddr 127.0.0.0/8 drop\n"
            "    iifname \"moat*\" ip saddr 127.0.0.0/8 drop\n  }\n"
            "  chain hostports {\n" +
            to_pods +
            "  }\n"
            "  chain prerouting {\n    type nat hook prerouting priority -100; policy accept;\n"
            "    fib daddr type local jump hostports\n  }\n"
            "  chain output {\n    type nat hook output priority -100; policy accept;\n"
            "    fib daddr type local jump hostports\n  }\n";
    }
    script +=
        "  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n"
        "    ip saddr 127.0.0.0/8 oifname \"moat*\" ct status dnat masquerade\n" +
        hairpins + outbound + "  }\n}\n";
    return script;
}

Status apply_rules(const NodeRules& rules, const std::string& table) {
    const std::string nft = nft_program();
    if (nft.empty()) {
        return Error(ENOENT, "no nft on this node: install nftables");
    }
    const ProcessResult result =
        TRY(run_process(nft, {"-f", "-"}, {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
                        nft_script(rules, table), kTimeout));
    if (result.exit_code != 0) {
        return internal_error("nft: " + result.err.substr(0, 1000));
    }
    return {};
}

}  // namespace moat::cri
