// sysfs: the little that C libraries, busybox, procps and language runtimes read. Read-only
// (sysfs(5)).

#include "kernel/fs/sys/sysfs.h"

#include <linux/magic.h>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

namespace {

struct Interfaces {
    Mutex<LockRank::kFileSystem> mu;
    std::vector<NetworkInterface> of GUARDED_BY(mu);
};
Interfaces& interfaces() {
    static Interfaces* const instance = new Interfaces;
    return *instance;
}

std::string cpu_range() {
    const uint32_t cpus = machine().cpus;
    return cpus == 1 ? "0\n" : format_text("0-%u\n", cpus - 1);
}

/// A mask of `cpus` ones in groups of 32 bits, highest first.
std::string cpu_mask() {
    std::string s;
    for (uint32_t group = (machine().cpus + 31) / 32; group > 0; group--) {
        const uint32_t left = machine().cpus - (group - 1) * 32;
        append_text(s, s.empty() ? "%x" : ",%08x", left >= 32 ? UINT32_MAX : (1u << left) - 1);
    }
    return s + "\n";
}

void add_cpus(StaticDirectory& system) {
    const auto cpu = system.directory("cpu");
    for (const char* name : {"online", "possible", "present"}) {
        cpu->text(name, cpu_range());
    }
    cpu->text("offline", "\n");
    cpu->text("isolated", "\n");
    cpu->text("kernel_max", format_text("%u\n", machine().cpus - 1));
    for (uint32_t n = 0; n < machine().cpus; n++) {
        const auto one = cpu->directory("cpu" + std::to_string(n));
        if (n > 0) {
            one->text("online", "1\n");
        }
        const auto topology = one->directory("topology");
        topology->text("core_id", format_text("%u\n", n));
        topology->text("physical_package_id", "0\n");
        topology->text("thread_siblings_list", format_text("%u\n", n));
        topology->text("core_siblings_list", cpu_range());
    }
    const auto node = system.directory("node");
    for (const char* name : {"online", "possible", "has_cpu", "has_memory"}) {
        node->text(name, "0\n");
    }
    const auto node0 = node->directory("node0");
    node0->text("cpulist", cpu_range());
    node0->text("cpumap", cpu_mask());
    node0->text("distance", "10\n");
    node0->text("meminfo", [](Task&) -> Result<std::string> {
        return format_text("Node 0 MemTotal:       %llu kB\n",
                           static_cast<unsigned long long>(machine().memory_bytes >> 10));
    });
}

void add_interfaces(StaticDirectory& net) {
    std::vector<NetworkInterface> all;
    {
        MutexLock lock(interfaces().mu);
        all = interfaces().of;
    }
    for (const NetworkInterface& i : all) {
        const auto one = net.directory(i.name);
        one->text("address", i.address + "\n");
        one->text("mtu", format_text("%u\n", i.mtu));
        one->text("ifindex", format_text("%u\n", i.index));
        one->text("flags", format_text("%#x\n", i.flags));
        one->text("type", i.loopback ? "772\n" : "1\n");
        one->text("operstate", i.loopback ? "unknown\n" : "up\n");
        one->text("carrier", "1\n");
    }
}

Result<RefPtr<FileSystem>> make_sysfs(const FileSystemRequest&) {
    auto fs = make_ref<SyntheticFileSystem>("sysfs", SYSFS_MAGIC);
    auto root = make_ref<StaticDirectory>(*fs);
    root->directory("block");
    root->directory("bus");
    const auto klass = root->directory("class");
    klass->directory("block");
    klass->directory("tty");
    klass->directory("dmi");
    add_interfaces(*klass->directory("net"));
    root->directory("dev")->directory("block");
    root->directory("dev")->directory("char");
    const auto devices = root->directory("devices");
    add_cpus(*devices->directory("system"));
    devices->directory("virtual");
    root->directory("firmware");
    root->directory("fs")->directory("cgroup");
    root->directory("hypervisor");
    const auto kernel = root->directory("kernel");
    kernel->directory("debug");
    kernel->directory("security");
    kernel->directory("tracing");
    const auto mm = kernel->directory("mm");
    // What the host does with guests' pages is its own affair; guests may ask for huge pages.
    const auto huge = mm->directory("transparent_hugepage");
    huge->text("enabled", "always [madvise] never\n");
    huge->text("defrag", "always defer defer+madvise [madvise] never\n");
    huge->text("shmem_enabled", "always within_size advise [never] deny force\n");
    huge->text("use_zero_page", "1\n");
    huge->text("hpage_pmd_size", "2097152\n");
    mm->directory("hugepages");
    root->directory("module");
    root->directory("power");
    fs->set_root(std::move(root));
    return RefPtr<FileSystem>(std::move(fs));
}

}  // namespace

void set_sysfs_interfaces(std::vector<NetworkInterface> all) {
    MutexLock lock(interfaces().mu);
    interfaces().of = std::move(all);
}

void register_sysfs() { register_file_system("sysfs", GuestMayMount::kYes, make_sysfs); }

}  // namespace moat::kernel
