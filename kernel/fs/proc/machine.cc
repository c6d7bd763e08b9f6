#include "kernel/fs/proc/machine.h"

#include <cpuid.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "kernel/base/check.h"
#include "kernel/base/version.h"
#include "kernel/fs/dev/kernel_log.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

Machine& mutable_machine() {
    static Machine* const instance = new Machine;
    return *instance;
}

uint32_t host_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    const int n = CPU_COUNT(&set);
    return n > 0 ? static_cast<uint32_t>(n) : 1;
}

uint64_t host_memory() {
    struct sysinfo info {};
    return sysinfo(&info) == 0 ? uint64_t{info.totalram} * info.mem_unit : 0;
}

/// The frequency of the time stamp counter, from CPUID where it says; 0: it does not.
uint64_t tsc_khz() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_max(0, nullptr) >= 0x15 && __get_cpuid_count(0x15, 0, &a, &b, &c, &d) != 0 &&
        a != 0 && b != 0 && c != 0) {
        return uint64_t{c} * b / a / 1000;
    }
    if (__get_cpuid_max(0, nullptr) >= 0x16 && __get_cpuid_count(0x16, 0, &a, &b, &c, &d) != 0 &&
        (a & 0xffff) != 0) {
        return uint64_t{a & 0xffff} * 1000;
    }
    return 0;
}

}  // namespace

std::string random_uuid() {
    uint8_t b[16];
    CHECK(getrandom(b, sizeof b, 0) == static_cast<ssize_t>(sizeof b));
    b[6] = static_cast<uint8_t>((b[6] & 0x0f) | 0x40);
    b[8] = static_cast<uint8_t>((b[8] & 0x3f) | 0x80);
    return format_text("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
                       b[13], b[14], b[15]);
}

void set_machine_memory(uint64_t bytes) {
    const uint64_t memory = host_memory();
    mutable_machine().memory_bytes = bytes != 0 && memory != 0 ? std::min(bytes, memory)
                                     : bytes != 0              ? bytes
                                                               : memory;
}

void set_up_machine(const control::SandboxPlan& plan, const char* platform) {
    Machine& m = mutable_machine();
    const uint32_t cpus = host_cpus();
    m.cpus = plan.cpus != 0 ? std::min(plan.cpus, cpus) : cpus;
    set_machine_memory(plan.memory_bytes);
    m.boot_monotonic_ns = monotonic_ns();
    m.boot_realtime_ns = realtime_ns();
    m.tsc_khz = tsc_khz();
    m.boot_id = random_uuid();
    m.hostname = plan.hostname;
    m.sysctls = plan.sysctls;

    kernel_log("%s", kProcVersion);
    kernel_log("moat: a kernel of its own for pod %s, platform %s", plan.id.c_str(), platform);
    kernel_log("Memory: %lluK available",
               static_cast<unsigned long long>(m.memory_bytes.load() >> 10));
    kernel_log("smp: %u CPU%s", m.cpus, m.cpus == 1 ? "" : "s");
    kernel_log("moat: network %s",
               plan.network == control::NetworkMode::kHost ? "of the pod" : "loopback only");
    const time_t seconds = static_cast<time_t>(m.boot_realtime_ns / 1'000'000'000);
    tm utc{};
    gmtime_r(&seconds, &utc);
    char when[64];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S UTC", &utc);
    kernel_log("moat: system time is %s (%lld)", when, static_cast<long long>(seconds));
}

const Machine& machine() { return mutable_machine(); }
int64_t uptime_ns() { return monotonic_ns() - machine().boot_monotonic_ns; }

// ---------------------------------------------------------------- /proc/cpuinfo

namespace {

enum Register : uint8_t { kEax, kEbx, kEcx, kEdx };

struct Feature {
    uint32_t leaf;
    uint32_t subleaf;
    Register reg;
    uint8_t bit;
    const char* name;  // as Linux names it
};

constexpr Feature kFeatures[] = {
    {1, 0, kEdx, 0, "fpu"},
    {1, 0, kEdx, 1, "vme"},
    {1, 0, kEdx, 2, "de"},
    {1, 0, kEdx, 3, "pse"},
    {1, 0, kEdx, 4, "tsc"},
    {1, 0, kEdx, 5, "msr"},
    {1, 0, kEdx, 6, "pae"},
    {1, 0, kEdx, 7, "mce"},
    {1, 0, kEdx, 8, "cx8"},
    {1, 0, kEdx, 9, "apic"},
    {1, 0, kEdx, 11, "sep"},
    {1, 0, kEdx, 12, "mtrr"},
    {1, 0, kEdx, 13, "pge"},
    {1, 0, kEdx, 14, "mca"},
    {1, 0, kEdx, 15, "cmov"},
    {1, 0, kEdx, 16, "pat"},
    {1, 0, kEdx, 17, "pse36"},
    {1, 0, kEdx, 19, "clflush"},
    {1, 0, kEdx, 23, "mmx"},
    {1, 0, kEdx, 24, "fxsr"},
    {1, 0, kEdx, 25, "sse"},
    {1, 0, kEdx, 26, "sse2"},
    {1, 0, kEdx, 27, "ss"},
    {1, 0, kEdx, 28, "ht"},
    {0x80000001, 0, kEdx, 11, "syscall"},
    {0x80000001, 0, kEdx, 20, "nx"},
    {0x80000001, 0, kEdx, 22, "mmxext"},
    {0x80000001, 0, kEdx, 25, "fxsr_opt"},
    {0x80000001, 0, kEdx, 26, "pdpe1gb"},
    {0x80000001, 0, kEdx, 27, "rdtscp"},
    {0x80000001, 0, kEdx, 29, "lm"},
    {1, 0, kEcx, 0, "pni"},
    {1, 0, kEcx, 1, "pclmulqdq"},
    {1, 0, kEcx, 9, "ssse3"},
    {1, 0, kEcx, 12, "fma"},
    {1, 0, kEcx, 13, "cx16"},
    {1, 0, kEcx, 17, "pcid"},
    {1, 0, kEcx, 19, "sse4_1"},
    {1, 0, kEcx, 20, "sse4_2"},
    {1, 0, kEcx, 21, "x2apic"},
    {1, 0, kEcx, 22, "movbe"},
    {1, 0, kEcx, 23, "popcnt"},
    {1, 0, kEcx, 25, "aes"},
    {1, 0, kEcx, 26, "xsave"},
    {1, 0, kEcx, 28, "avx"},
    {1, 0, kEcx, 29, "f16c"},
    {1, 0, kEcx, 30, "rdrand"},
    {1, 0, kEcx, 31, "hypervisor"},
    {0x80000001, 0, kEcx, 0, "lahf_lm"},
    {0x80000001, 0, kEcx, 4, "cr8_legacy"},
    {0x80000001, 0, kEcx, 5, "abm"},
    {0x80000001, 0, kEcx, 6, "sse4a"},
    {0x80000001, 0, kEcx, 7, "misalignsse"},
    {0x80000001, 0, kEcx, 8, "3dnowprefetch"},
    {7, 0, kEbx, 0, "fsgsbase"},
    {7, 0, kEbx, 3, "bmi1"},
    {7, 0, kEbx, 5, "avx2"},
    {7, 0, kEbx, 7, "smep"},
    {7, 0, kEbx, 8, "bmi2"},
    {7, 0, kEbx, 9, "erms"},
    {7, 0, kEbx, 10, "invpcid"},
    {7, 0, kEbx, 16, "avx512f"},
    {7, 0, kEbx, 17, "avx512dq"},
    {7, 0, kEbx, 18, "rdseed"},
    {7, 0, kEbx, 19, "adx"},
    {7, 0, kEbx, 20, "smap"},
    {7, 0, kEbx, 21, "avx512ifma"},
    {7, 0, kEbx, 23, "clflushopt"},
    {7, 0, kEbx, 24, "clwb"},
    {7, 0, kEbx, 28, "avx512cd"},
    {7, 0, kEbx, 29, "sha_ni"},
    {7, 0, kEbx, 30, "avx512bw"},
    {7, 0, kEbx, 31, "avx512vl"},
    {7, 0, kEcx, 1, "avx512vbmi"},
    {7, 0, kEcx, 2, "umip"},
    {7, 0, kEcx, 3, "pku"},
    {7, 0, kEcx, 6, "avx512_vbmi2"},
    {7, 0, kEcx, 8, "gfni"},
    {7, 0, kEcx, 9, "vaes"},
    {7, 0, kEcx, 10, "vpclmulqdq"},
    {7, 0, kEcx, 11, "avx512_vnni"},
    {7, 0, kEcx, 12, "avx512_bitalg"},
    {7, 0, kEcx, 14, "avx512_vpopcntdq"},
    {7, 0, kEcx, 22, "rdpid"},
    {7, 0, kEdx, 4, "fsrm"},
    {7, 0, kEdx, 14, "serialize"},
    {0xd, 1, kEax, 0, "xsaveopt"},
    {0xd, 1, kEax, 1, "xsavec"},
    {0xd, 1, kEax, 2, "xgetbv1"},
};

bool has_feature(const Feature& f) {
    unsigned r[4] = {};
    if (__get_cpuid_count(f.leaf, f.subleaf, &r[0], &r[1], &r[2], &r[3]) == 0) {
        return false;
    }
    return (r[f.reg] >> f.bit & 1) != 0;
}

std::string one_processor() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    char vendor[13] = {};
    __get_cpuid(0, &a, &b, &c, &d);
    const unsigned last_leaf = a;
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    __get_cpuid(1, &a, &b, &c, &d);
    unsigned family = a >> 8 & 15;
    unsigned model = a >> 4 & 15;
    if (family == 15) {
        family += a >> 20 & 255;
    }
    if (family >= 6) {
        model |= (a >> 16 & 15) << 4;
    }
    const unsigned stepping = a & 15;
    const unsigned line = (b >> 8 & 255) * 8;
    char brand[49] = {};
    for (unsigned i = 0; i < 3; i++) {
        unsigned r[4] = {};
        __get_cpuid(0x80000002 + i, &r[0], &r[1], &r[2], &r[3]);
        memcpy(brand + i * 16, r, 16);
    }
    const char* name = brand;
    while (*name == ' ') {
        name++;
    }
    unsigned sizes = 0;
    __get_cpuid(0x80000008, &sizes, &b, &c, &d);
    unsigned l2 = 0;
    __get_cpuid(0x80000006, &a, &b, &l2, &d);

    std::string text;
    append_text(text, "vendor_id\t: %s\n", vendor);
    append_text(text, "cpu family\t: %u\nmodel\t\t: %u\nmodel name\t: %s\nstepping\t: %u\n", family,
                model, name, stepping);
    const uint64_t khz = machine().tsc_khz;
    if (khz != 0) {
        append_text(text, "cpu MHz\t\t: %llu.%03llu\n", static_cast<unsigned long long>(khz / 1000),
                    static_cast<unsigned long long>(khz % 1000));
    }
    append_text(text, "cache size\t: %u KB\n", l2 >> 16);
    append_text(text,
                "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: %u\nwp\t\t: yes\nflags\t\t:",
                last_leaf);
    for (const Feature& feature : kFeatures) {
        if (has_feature(feature)) {
            text += ' ';
            text += feature.name;
        }
    }
    text += "\nbugs\t\t:\n";
    if (khz != 0) {
        append_text(text, "bogomips\t: %llu.%02llu\n", static_cast<unsigned long long>(khz / 500),
                    static_cast<unsigned long long>(khz / 5 % 100));
    }
    append_text(text, "clflush size\t: %u\ncache_alignment\t: %u\n", line, line);
    append_text(text, "address sizes\t: %u bits physical, %u bits virtual\npower management:\n\n",
                sizes & 255, sizes >> 8 & 255);
    return text;
}

}  // namespace

std::string cpuinfo_text() {
    static const std::string* const common = new std::string(one_processor());
    std::string text;
    for (uint32_t cpu = 0; cpu < machine().cpus; cpu++) {
        append_text(text, "processor\t: %u\n", cpu);
        const size_t after_stepping = common->find("cache size");
        text.append(*common, 0, after_stepping);
        const size_t next = common->find('\n', after_stepping) + 1;
        text.append(*common, after_stepping, next - after_stepping);
        append_text(text,
                    "physical id\t: 0\nsiblings\t: %u\ncore id\t\t: %u\ncpu cores\t: %u\n"
                    "apicid\t\t: %u\ninitial apicid\t: %u\n",
                    machine().cpus, cpu, machine().cpus, cpu, cpu);
        text.append(*common, next);
    }
    return text;
}

}  // namespace moat::kernel
