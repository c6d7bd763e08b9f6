#include "kernel/fs/cgroupfs/cgroupfs.h"

#include <linux/magic.h>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/task_view.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/task/container.h"

namespace moat::kernel {

namespace {

using ull = unsigned long long;

struct Source {
    Mutex<LockRank::kFileSystem> mu;
    CgroupSource source GUARDED_BY(mu);
};
Source& the_source() {
    static Source* const instance = new Source;
    return *instance;
}

CgroupFigures figures_of(const Container& container) {
    CgroupSource source;
    {
        MutexLock lock(the_source().mu);
        source = the_source().source;
    }
    if (source) {
        return source(container);
    }
    CgroupFigures f;
    const control::ShownLimits limits = container.limits();
    // The pod's limit is that of a cgroup above, which is out of sight: it shows here.
    const MemoryView memory = memory_view(container.pid_namespace(), container);
    f.memory_max = memory.total;
    f.memory_current = memory.resident;
    f.cpu_quota_us = *limits.cpu_quota_us;
    f.cpu_period_us = *limits.cpu_period_us;
    f.cpu_weight = *limits.cpu_weight;
    f.oom_kills = container.oom_kills();
    f.pids_max = container.pids_limit();
    f.pids_current = container.task_count();
    for (const auto& group : container.pid_namespace().groups()) {
        f.cpu_usage_us += group->cpu_ns() / 1000;
    }
    return f;
}

std::string limit(uint64_t value) {
    return value == 0 ? "max\n" : format_text("%llu\n", static_cast<ull>(value));
}

/// A text about the reading task's container.
template <typename F>
TextSource about(F text) {
    return [text](Task& task) -> Result<std::string> { return text(figures_of(task.container())); };
}

Result<RefPtr<FileSystem>> make_cgroup2(const FileSystemRequest&) {
    auto fs = make_ref<SyntheticFileSystem>("cgroup2", CGROUP2_SUPER_MAGIC);
    auto root = make_ref<StaticDirectory>(*fs);
    root->text("cgroup.controllers", "cpuset cpu memory pids\n");
    root->text("cgroup.subtree_control", "");
    root->text("cgroup.type", "domain\n");
    root->text("cgroup.events", "populated 1\nfrozen 0\n");
    root->text("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n");
    root->text("cgroup.max.depth", "max\n");
    root->text("cgroup.max.descendants", "max\n");
    root->text("cgroup.procs", [](Task& task) -> Result<std::string> {
        std::string s;
        for (const auto& group : task.pid_namespace().groups()) {
            if (&group->container() == &task.container()) {
                append_text(s, "%d\n", group->pid());
            }
        }
        return s;
    });
    root->text("cgroup.threads", [](Task& task) -> Result<std::string> {
        std::string s;
        for (const auto& group : task.pid_namespace().groups()) {
            for (const auto& thread : TaskTable::tasks_of(*group)) {
                if (&group->container() == &task.container()) {
                    append_text(s, "%d\n", thread->tid());
                }
            }
        }
        return s;
    });
    root->text("memory.max", about([](const CgroupFigures& f) { return limit(f.memory_max); }));
    root->text("memory.high", "max\n");
    root->text("memory.low", "0\n");
    root->text("memory.min", "0\n");
    root->text("memory.swap.max", "0\n");
    root->text("memory.swap.current", "0\n");
    root->text("memory.current", about([](const CgroupFigures& f) {
                   return format_text("%llu\n", static_cast<ull>(f.memory_current));
               }));
    root->text("memory.stat", about([](const CgroupFigures& f) {
                   return format_text("anon %llu\nfile 0\ninactive_file 0\n",
                                      static_cast<ull>(f.memory_current));
               }));
    root->text("memory.events", about([](const CgroupFigures& f) {
                   return format_text("low 0\nhigh 0\nmax 0\noom %llu\noom_kill %llu\n",
                                      static_cast<ull>(f.oom_kills), static_cast<ull>(f.oom_kills));
               }));
    root->text("cpu.max", about([](const CgroupFigures& f) {
                   return f.cpu_quota_us == 0
                              ? format_text("max %llu\n", static_cast<ull>(f.cpu_period_us))
                              : format_text("%llu %llu\n", static_cast<ull>(f.cpu_quota_us),
                                            static_cast<ull>(f.cpu_period_us));
               }));
    root->text("cpu.weight", about([](const CgroupFigures& f) {
                   return format_text("%llu\n", static_cast<ull>(f.cpu_weight));
               }));
    root->text("cpuset.cpus", [](Task& task) -> Result<std::string> {
        return *task.container().limits().cpus + "\n";
    });
    root->text("cpuset.cpus.effective", [](Task& task) -> Result<std::string> {
        return cpu_list(visible_cpus(task.container())) + "\n";
    });
    root->text("cpu.stat", about([](const CgroupFigures& f) {
                   return format_text("usage_usec %llu\nuser_usec %llu\nsystem_usec 0\n",
                                      static_cast<ull>(f.cpu_usage_us),
                                      static_cast<ull>(f.cpu_usage_us));
               }));
    root->text("pids.max", about([](const CgroupFigures& f) { return limit(f.pids_max); }));
    root->text("pids.current", about([](const CgroupFigures& f) {
                   return format_text("%llu\n", static_cast<ull>(f.pids_current));
               }));
    fs->set_root(std::move(root));
    return RefPtr<FileSystem>(std::move(fs));
}

}  // namespace

void set_cgroup_source(CgroupSource source) {
    MutexLock lock(the_source().mu);
    the_source().source = std::move(source);
}

void register_cgroupfs() {
    // Plans say "cgroup" (OCI's word for either version).
    register_file_system("cgroup", GuestMayMount::kNo, make_cgroup2);
    register_file_system("cgroup2", GuestMayMount::kYes, make_cgroup2);
}

}  // namespace moat::kernel
