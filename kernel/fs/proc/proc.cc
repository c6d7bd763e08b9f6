#include "kernel/fs/proc/proc.h"

#include <dirent.h>
#include <linux/magic.h>

#include <algorithm>

#include "kernel/fs/registry.h"
#include "kernel/task/container.h"

namespace moat::kernel {

namespace {

class RootDirectory final : public SyntheticDirectory {
  public:
    RootDirectory(ProcFileSystem& fs, RefPtr<StaticDirectory> fixed)
        : SyntheticDirectory(fs, 0555, 1), fixed_(std::move(fixed)) {}

    Result<RefPtr<Inode>> lookup(Task& task, std::string_view name) override {
        const auto number = name[0] == '0' ? std::nullopt : parse_number(name);
        if (!number) {
            return fixed_->lookup(task, name);
        }
        if (*number < 1 || *number > PidNamespace::kMaxPid) {
            return Errno(ENOENT);
        }
        auto& fs = static_cast<ProcFileSystem&>(file_system());
        const auto pid = static_cast<int32_t>(*number);
        // A thread's number leads to its directory too, although none is listed (proc(5)).
        auto found = fs.pids().find_task(pid);
        if (const auto group = fs.pids().find_group(pid)) {
            found = task_of_process(*group);
        }
        if (!found) {
            return Errno(ENOENT);
        }
        return make_task_directory(fs, {fs.pids_ref(), pid, found->start_time_ns(), true});
    }

    Result<std::vector<DirectoryEntry>> list(Task& task) override {
        auto& fs = static_cast<ProcFileSystem&>(file_system());
        auto entries = TRY(fixed_->list(task));
        std::vector<int32_t> pids;
        for (const auto& group : fs.pids().groups()) {
            pids.push_back(group->pid());
        }
        std::sort(pids.begin(), pids.end());
        for (const int32_t pid : pids) {
            entries.push_back({std::to_string(pid), static_cast<uint64_t>(pid) << 16, DT_DIR});
        }
        return entries;
    }

  protected:
    uint32_t link_count() override {
        return 2 + static_cast<uint32_t>(
                       static_cast<ProcFileSystem&>(file_system()).pids().task_count());
    }

  private:
    const RefPtr<StaticDirectory> fixed_;
};

}  // namespace

ProcFileSystem::ProcFileSystem(RefPtr<PidNamespace> pids)
    : SyntheticFileSystem("proc", PROC_SUPER_MAGIC), pids_(std::move(pids)) {
    set_dentries_stable(false);
}

RefPtr<ProcFileSystem> ProcFileSystem::create(RefPtr<PidNamespace> pids) {
    auto fs = adopt_ref(new ProcFileSystem(std::move(pids)));
    ProcFileSystem* const raw = fs.get();
    auto fixed = make_ref<StaticDirectory>(*fs);
    fixed->add("self", make_ref<LinkInode>(*fs, [raw](Task& task) -> Result<std::string> {
                   if (&task.pid_namespace() != &raw->pids()) {
                       return Errno(ENOENT);
                   }
                   return std::to_string(task.pid());
               }));
    fixed->add("thread-self", make_ref<LinkInode>(*fs, [raw](Task& task) -> Result<std::string> {
                   if (&task.pid_namespace() != &raw->pids()) {
                       return Errno(ENOENT);
                   }
                   return format_text("%d/task/%d", task.pid(), task.tid());
               }));
    add_system_files(*fs, *fixed);
    add_sysctls(*fs, *fixed->directory("sys"));
    fs->net_ = make_ref<StaticDirectory>(*fs);
    add_net_files(*fs, *fs->net_);
    fixed->link("net", "self/net");
    fixed->link("mounts", "self/mounts");
    fs->set_root(make_ref<RootDirectory>(*fs, std::move(fixed)));
    return fs;
}

RefPtr<Task> task_of_process(const ThreadGroup& group) {
    // The first thread that has ended stands for its process all the same.
    auto ended = group.ended_leader();
    return ended ? ended : group.leader();
}

Result<RefPtr<Task>> TaskName::find() const {
    RefPtr<Task> task;
    if (const auto group = process ? pids->find_group(tid) : nullptr) {
        task = task_of_process(*group);
    } else {
        task = pids->find_task(tid);
        if (const auto dead = task ? nullptr : pids->find_group(tid)) {
            task = dead->ended_leader();  // a zombie still has its first thread to show
        }
    }
    if (!task || task->start_time_ns() != start_ns) {
        return Errno(ESRCH);
    }
    return task;
}

uint64_t TaskName::ino(uint32_t kind, uint32_t index) const {
    // splitmix64's mixing over all that tells them apart.
    uint64_t x = static_cast<uint64_t>(start_ns) ^ static_cast<uint64_t>(tid) << 42 ^
                 static_cast<uint64_t>(kind) << 34 ^ static_cast<uint64_t>(process) << 63 ^ index;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) >> 8 | 1ull << 40;  // never one of the small numbers of fixed files
}

void register_proc() {
    register_file_system(
        "proc", GuestMayMount::kYes,
        [](const FileSystemRequest& request) -> Result<RefPtr<FileSystem>> {
            // A guest that mounts it sees its own namespace, whatever container asked first.
            Container* const container =
                request.task != nullptr ? &request.task->container() : request.container;
            if (container == nullptr) {
                return Errno(EINVAL);
            }
            return RefPtr<FileSystem>(ProcFileSystem::create(container->pid_namespace_ref()));
        });
}

}  // namespace moat::kernel
