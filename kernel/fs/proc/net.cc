// /proc/net: the headers are here, the lines come from the socket layer where it has registered a
// source.

#include "kernel/fs/proc/net.h"

#include "kernel/fs/proc/proc.h"

namespace moat::kernel {

namespace {

struct Sources {
    Mutex<LockRank::kFileSystem> mu;
    std::vector<std::pair<std::string, std::function<std::string()>>> of GUARDED_BY(mu);
};
Sources& sources() {
    static Sources* const instance = new Sources;
    return *instance;
}

struct Table {
    const char* name;
    const char* header;
};

constexpr const char kSocketHeader[] =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode\n";
constexpr const char kSocket6Header[] =
    "  sl  local_address                         remote_address                        st tx_queue "
    "rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// What stands above the lines; a table that nobody fills is shown with no lines.
constexpr Table kTables[] = {
    {"tcp", kSocketHeader},
    {"tcp6", kSocket6Header},
    {"udp", kSocketHeader},
    {"udp6", kSocket6Header},
    {"raw", kSocketHeader},
    {"unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"},
    {"netlink",
     "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    "
     "Inode\n"},
    {"packet", "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"},
    {"dev",
     "Inter-|   Receive                                                |  Transmit\n"
     " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
     "drop fifo colls carrier compressed\n"},
    {"route",
     "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
     "\n"},
    {"ipv6_route", ""},
    {"if_inet6", ""},
    {"arp", "IP address       HW type     Flags       HW address            Mask     Device\n"},
    {"protocols",
     "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de "
     "sh ss gs se re sp bi br ha uh gp em\n"},
    {"sockstat", "sockets: used 0\n"},
    {"sockstat6", ""},
    {"snmp", ""},
    {"netstat", ""},
    {"wireless", ""},
};

std::string lines_of(const std::string& name) {
    std::function<std::string()> source;
    {
        MutexLock lock(sources().mu);
        for (const auto& [of, function] : sources().of) {
            if (of == name) {
                source = function;
            }
        }
    }
    return source ? source() : "";
}

}  // namespace

void set_proc_net_source(std::string name, std::function<std::string()> lines) {
    MutexLock lock(sources().mu);
    sources().of.emplace_back(std::move(name), std::move(lines));
}

void add_net_files(ProcFileSystem&, StaticDirectory& net) {
    for (const Table& table : kTables) {
        net.text(table.name, [&table](Task&) -> Result<std::string> {
            return table.header + lines_of(table.name);
        });
    }
}

}  // namespace moat::kernel
