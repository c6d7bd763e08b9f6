// /proc/PID, /proc/PID/task/TID and what is in them.

#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>

#include "kernel/fs/fd_table.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/fs/vfs.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/fs_context.h"

namespace moat::kernel {

namespace {

/// Kinds of things, for inode numbers.
enum Kind : uint32_t { kEntry = 1, kFdLink, kFdInfo, kNsLink, kTaskDirectoryKind };

/// Owned by the task's effective ids, as long as it lives (proc(5)).
InodeAttributes owned_by(InodeAttributes a, const TaskName& name) {
    const auto task = name.find();
    if (const auto who = task.ok() ? (*task)->credentials() : nullptr) {
        a.uid = who->euid;
        a.gid = who->egid;
    }
    return a;
}

ProcFileSystem& proc_of(Inode& inode) { return static_cast<ProcFileSystem&>(inode.file_system()); }

// ---------------------------------------------------------------- entries

using LinkPath = Result<Path> (*)(Task& target);
using LinkWords = Result<std::string> (*)(Task& reader, Task& target);
using Write = Status (*)(Task& writer, Task& target, std::string_view text);

struct Entry {
    const char* name;
    uint32_t mode;  // with the type for links and directories
    TaskText text = nullptr;
    Write write = nullptr;
    LinkPath path = nullptr;
    bool process_only = false;
};

/// mounts and mountinfo: poll(2) gives EPOLLERR and EPOLLPRI once after each change of the tree
/// (proc(5); Linux: fs/proc_namespace.c:mounts_poll).
class MountsFile final : public File {
  public:
    MountsFile(uint32_t flags, RefPtr<File> text, const FsContext& fs)
        : File(flags), text_(std::move(text)), mounts_(fs.mounts_ref()), root_(fs.root()) {
        seen_ = fingerprint();
    }
    Result<size_t> read(Task& task, IoBuffer& destination) override {
        return text_->read(task, destination);
    }
    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset) override {
        return text_->pread(task, destination, offset);
    }
    Result<int64_t> seek(Task& task, int64_t offset, int whence) override {
        return text_->seek(task, offset, whence);
    }
    PollMask poll() override {
        const size_t now = fingerprint();
        const PollMask changed = seen_.exchange(now) != now ? EPOLLERR | EPOLLPRI : 0;
        return EPOLLIN | EPOLLRDNORM | changed;
    }
    WaitQueue* wait_queue() override { return &mounts_->changed(); }

  private:
    /// Mounts' numbers are never used again, so that every change shows in the text.
    size_t fingerprint() const { return std::hash<std::string>()(mounts_->mountinfo_text(root_)); }

    const RefPtr<File> text_;
    const RefPtr<MountNamespace> mounts_;
    const Path root_;
    std::atomic<size_t> seen_{0};  // no other data depends on it
};

class TaskTextInode final : public TextInode {
  public:
    TaskTextInode(ProcFileSystem& fs, TaskName name, const Entry& entry, uint64_t ino)
        : TextInode(
              fs, entry.mode & 0777,
              [name, text = entry.text](Task& reader) -> Result<std::string> {
                  return text(reader, *TRY(name.find()));
              },
              entry.write == nullptr
                  ? TextTarget()
                  : [name, write = entry.write](Task& writer, std::string_view text) -> Status {
                  return write(writer, *TRY(name.find()), text);
              },
              ino),
          name_(std::move(name)),
          tells_of_mounts_(std::string_view(entry.name) == "mounts" ||
                           std::string_view(entry.name) == "mountinfo") {}
    Result<InodeAttributes> attributes() override {
        return owned_by(TRY(TextInode::attributes()), name_);
    }
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override {
        auto text = TRY(TextInode::open(task, path, flags));
        const auto fs = tells_of_mounts_ ? TRY(name_.find())->fs_ref() : nullptr;
        if (!fs) {
            return text;
        }
        RefPtr<File> file = make_ref<MountsFile>(flags, std::move(text), *fs);
        file->set_path(path);
        return file;
    }

  private:
    const TaskName name_;
    const bool tells_of_mounts_;
};

/// cwd, root, exe.
class TaskLink final : public SyntheticInode {
  public:
    TaskLink(ProcFileSystem& fs, TaskName name, LinkPath path, uint64_t ino)
        : SyntheticInode(fs, S_IFLNK | 0777, ino), name_(std::move(name)), path_(path) {}
    Result<InodeAttributes> attributes() override {
        return owned_by(TRY(SyntheticInode::attributes()), name_);
    }
    Result<std::string> read_link(Task& task) override {
        return path_text(TRY(target(task)), task.fs().root());
    }
    Result<Path> follow_magic_link(Task& task) override { return target(task); }
    Result<RefPtr<File>> open(Task&, const Path&, uint32_t) override { return Errno(ELOOP); }

  private:
    Result<Path> target(Task& reader) {
        const auto task = TRY(name_.find());
        TRY(may_inspect(reader, *task));
        Path path = TRY(path_(*task));
        if (path.is_null()) {
            return Errno(ENOENT);
        }
        return path;
    }

    const TaskName name_;
    const LinkPath path_;
};

Result<Path> cwd_path(Task& target) {
    const auto fs = target.fs_ref();
    return fs ? fs->cwd() : Path();
}

Result<Path> root_path(Task& target) {
    const auto fs = target.fs_ref();
    return fs ? fs->root() : Path();
}

Result<Path> exe_path(Task& target) {
    const auto mm = target.mm_ref();
    const auto file = mm ? mm->executable() : nullptr;
    return file ? file->path() : Path();
}

// ---------------------------------------------------------------- short texts

Result<std::string> comm_text(Task&, Task& target) { return target.name() + "\n"; }

Status set_comm(Task& writer, Task& target, std::string_view text) {
    if (&writer.group() != &target.group()) {
        return Errno(EINVAL);
    }
    target.set_name(text);
    return {};
}

Result<std::string> maps_text(Task& reader, Task& target) {
    TRY(may_inspect(reader, target));
    const auto mm = target.mm_ref();
    return mm ? mm->maps_text(reader.fs().root()) : std::string();
}

Result<std::string> smaps_text(Task& reader, Task& target) {
    TRY(may_inspect(reader, target));
    const auto mm = target.mm_ref();
    return mm ? mm->smaps_text(reader.fs().root()) : std::string();
}

Result<std::string> mounts_text(Task&, Task& target) {
    const auto fs = target.fs_ref();
    return fs ? Result<std::string>(fs->mounts().mounts_text(fs->root())) : Errno(EINVAL);
}

Result<std::string> mountinfo_text(Task&, Task& target) {
    const auto fs = target.fs_ref();
    return fs ? Result<std::string>(fs->mounts().mountinfo_text(fs->root())) : Errno(EINVAL);
}

/// The same facts as mounts in other words (fs/proc_namespace.c:show_vfsstat).
Result<std::string> mountstats_text(Task& reader, Task& target) {
    const std::string mounts = TRY(mounts_text(reader, target));
    std::string s;
    for (size_t at = 0; at < mounts.size();) {
        const size_t end = std::min(mounts.find('\n', at), mounts.size());
        const std::string line = mounts.substr(at, end - at);
        at = end + 1;
        const size_t a = line.find(' ');
        const size_t b = a == std::string::npos ? a : line.find(' ', a + 1);
        const size_t c = b == std::string::npos ? b : line.find(' ', b + 1);
        if (c != std::string::npos) {
            append_text(s, "device %s mounted on %s with fstype %s\n", line.substr(0, a).c_str(),
                        line.substr(a + 1, b - a - 1).c_str(),
                        line.substr(b + 1, c - b - 1).c_str());
        }
    }
    return s;
}

Result<std::string> cgroup_text(Task&, Task&) { return std::string("0::/\n"); }

Result<std::string> oom_score_text(Task&, Task& target) {
    const uint64_t total = std::max<uint64_t>(machine().memory_bytes, 1);
    const auto score = static_cast<int64_t>(resident_bytes(target) * 1000 / total);
    return format_text("%lld\n", static_cast<long long>(std::clamp<int64_t>(
                                     score + target.scheduling.oom_score_adj, 0, 2000)));
}

Result<std::string> oom_score_adj_text(Task&, Task& target) {
    return format_text("%d\n", target.scheduling.oom_score_adj.load());
}

Status set_oom_score_adj(Task& writer, Task& target, std::string_view text) {
    const auto value = parse_number(text);
    if (!value || *value < -1000 || *value > 1000) {
        return Errno(EINVAL);
    }
    if (*value < target.scheduling.oom_score_adj &&
        !writer.has_capability(24 /* CAP_SYS_RESOURCE */)) {
        return Errno(EACCES);
    }
    target.scheduling.oom_score_adj = static_cast<int32_t>(*value);
    return {};
}

Result<std::string> no_audit_text(Task&, Task&) { return std::string("4294967295"); }

std::string id_map_text(const control::IdMap& map) {
    return format_text("%10u %10u %10u\n", 0, map.host_id, map.length);
}

Result<std::string> uid_map_text(Task&, Task& target) {
    return id_map_text(target.container().plan().uid_map);
}

Result<std::string> gid_map_text(Task&, Task& target) {
    return id_map_text(target.container().plan().gid_map);
}

Result<std::string> setgroups_text(Task&, Task&) { return std::string("allow\n"); }

Result<std::string> wchan_text(Task&, Task& target) {
    const char* const in = target.blocked_in();
    return std::string(in != nullptr && *in != '\0' ? in : "0");
}

Result<std::string> personality_text(Task& reader, Task& target) {
    TRY(may_inspect(reader, target));
    return format_text("%08x\n", target.personality());
}

Result<std::string> schedstat_text(Task&, Task& target) {
    return format_text("%llu 0 0\n", static_cast<unsigned long long>(cpu_times(target).user_ns));
}

/// A sentry's stacks are nobody's business in the guest.
Result<std::string> refused_text(Task&, Task&) { return Errno(EPERM); }

constexpr Entry kEntries[] = {
    {"fd", S_IFDIR | 0500},
    {"fdinfo", S_IFDIR | 0555},
    {"ns", S_IFDIR | 0511},
    {"net", S_IFDIR | 0555},
    {"task", S_IFDIR | 0555, nullptr, nullptr, nullptr, true},
    {"cwd", S_IFLNK | 0777, nullptr, nullptr, cwd_path},
    {"root", S_IFLNK | 0777, nullptr, nullptr, root_path},
    {"exe", S_IFLNK | 0777, nullptr, nullptr, exe_path},
    {"auxv", 0400, proc_auxv},
    {"cgroup", 0444, cgroup_text},
    {"cmdline", 0444, proc_cmdline},
    {"comm", 0644, comm_text, set_comm},
    {"environ", 0400, proc_environ},
    {"gid_map", 0444, gid_map_text},
    {"limits", 0444, proc_limits},
    {"loginuid", 0444, no_audit_text},
    {"maps", 0444, maps_text},
    {"mem", 0600},
    {"mountinfo", 0444, mountinfo_text},
    {"mounts", 0444, mounts_text},
    {"mountstats", 0400, mountstats_text, nullptr, nullptr, true},
    {"oom_score", 0444, oom_score_text},
    {"oom_score_adj", 0644, oom_score_adj_text, set_oom_score_adj},
    {"personality", 0400, personality_text},
    {"schedstat", 0444, schedstat_text},
    {"sessionid", 0444, no_audit_text},
    {"setgroups", 0444, setgroups_text, nullptr, nullptr, true},
    {"smaps", 0444, smaps_text},
    {"stack", 0400, refused_text},
    {"stat", 0444, proc_stat},
    {"statm", 0444, proc_statm},
    {"status", 0444, proc_status},
    {"uid_map", 0444, uid_map_text},
    {"wchan", 0444, wchan_text},
};

// ---------------------------------------------------------------- mem

/// An open /proc/PID/mem: the address space that the process had then (Linux:
/// fs/proc/base.c:mem_rw). Pages that the process itself may not read or write give EIO; Linux's
/// FOLL_FORCE is for debuggers, which there are none of here.
class MemoryFile final : public File {
  public:
    MemoryFile(uint32_t flags, RefPtr<AddressSpace> mm) : File(flags), mm_(std::move(mm)) {}

    Result<size_t> read(Task& task, IoBuffer& destination) override {
        const int64_t at = position_.load();
        const size_t n = TRY(pread(task, destination, at));
        position_.store(at + static_cast<int64_t>(n));
        return n;
    }
    Result<size_t> write(Task& task, IoBuffer& source) override {
        const int64_t at = position_.load();
        const size_t n = TRY(pwrite(task, source, at));
        position_.store(at + static_cast<int64_t>(n));
        return n;
    }
    Result<size_t> pread(Task&, IoBuffer& destination, int64_t offset) override {
        char data[kPageSize];
        size_t total = 0;
        while (destination.remaining() > 0) {
            const size_t wanted = std::min(sizeof data, destination.remaining());
            const size_t got =
                mm_->read(data, GuestAddr{static_cast<uint64_t>(offset) + total}, wanted);
            const auto put = destination.put(data, got);
            if (got == 0 || !put.ok()) {
                return total > 0 ? Result<size_t>(total) : got == 0 ? Errno(EIO) : put;
            }
            total += *put;
            if (*put < wanted) {
                break;
            }
        }
        return total;
    }
    Result<size_t> pwrite(Task&, IoBuffer& source, int64_t offset) override {
        char data[kPageSize];
        size_t total = 0;
        while (source.remaining() > 0) {
            IoBuffer ahead = source;  // what cannot be put must not count as transferred
            const auto taken = ahead.take(data, std::min(sizeof data, source.remaining()));
            if (!taken.ok()) {
                return total > 0 ? Result<size_t>(total) : taken;
            }
            const size_t put =
                mm_->write(GuestAddr{static_cast<uint64_t>(offset) + total}, data, *taken);
            TRY(source.take(data, put));
            total += put;
            if (put < *taken) {
                return total > 0 ? Result<size_t>(total) : Errno(EIO);
            }
        }
        return total;
    }
    /// Addresses are unsigned: no place is out of range (Linux: mem_lseek).
    Result<int64_t> seek(Task&, int64_t offset, int whence) override {
        if (whence != SEEK_SET && whence != SEEK_CUR) {
            return Errno(EINVAL);
        }
        const int64_t base = whence == SEEK_CUR ? position_.load() : 0;
        const int64_t at =
            static_cast<int64_t>(static_cast<uint64_t>(base) + static_cast<uint64_t>(offset));
        position_.store(at);
        return at;
    }

  private:
    const RefPtr<AddressSpace> mm_;
    std::atomic<int64_t> position_{0};  // racing readers of one description may see one place twice
};

class MemoryInode final : public SyntheticInode {
  public:
    MemoryInode(ProcFileSystem& fs, TaskName name, uint32_t permissions, uint64_t ino)
        : SyntheticInode(fs, S_IFREG | permissions, ino), name_(std::move(name)) {}
    Result<InodeAttributes> attributes() override {
        return owned_by(TRY(SyntheticInode::attributes()), name_);
    }
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override {
        const auto target = TRY(name_.find());
        TRY(may_inspect(task, *target));
        auto mm = target->mm_ref();
        if (!mm) {
            return Errno(EACCES);  // a zombie
        }
        RefPtr<File> file = make_ref<MemoryFile>(flags, std::move(mm));
        file->set_path(path);
        return file;
    }

  private:
    const TaskName name_;
};

// ---------------------------------------------------------------- fd, fdinfo

Result<RefPtr<File>> file_at(const TaskName& name, Task& reader, Fd fd) {
    const auto task = TRY(name.find());
    TRY(may_inspect(reader, *task));
    const auto fds = task->fds_ref();
    if (!fds) {
        return Errno(ENOENT);
    }
    auto file = fds->get(fd);
    if (!file.ok()) {
        return Errno(ENOENT);
    }
    return file;
}

/// /proc/PID/fd/N.
class FdLink final : public SyntheticInode {
  public:
    FdLink(ProcFileSystem& fs, TaskName name, Fd fd, uint32_t permissions)
        : SyntheticInode(
              fs, S_IFLNK | permissions,
              name.ino(kFdLink, static_cast<uint32_t>(to_integer(fd)) << 10 | permissions)),
          name_(std::move(name)),
          fd_(fd) {}
    Result<InodeAttributes> attributes() override {
        auto a = owned_by(TRY(SyntheticInode::attributes()), name_);
        a.size = 64;
        return a;
    }
    Result<std::string> read_link(Task& task) override {
        return file_name(*TRY(file_at(name_, task, fd_)), task.fs().root());
    }
    Result<Path> follow_magic_link(Task& task) override {
        return TRY(file_at(name_, task, fd_))->path();
    }
    Result<RefPtr<File>> magic_file(Task& task) override {
        auto file = TRY(file_at(name_, task, fd_));
        return file->path() ? RefPtr<File>() : file;
    }
    Result<RefPtr<File>> open(Task&, const Path&, uint32_t) override { return Errno(ELOOP); }

  private:
    const TaskName name_;
    const Fd fd_;
};

Result<std::string> fdinfo_text(const TaskName& name, Task& reader, Fd fd) {
    const auto file = TRY(file_at(name, reader, fd));
    const auto position = file->seek(reader, 0, SEEK_CUR);
    const auto stat = file->stat(reader);
    uint32_t flags = file->flags();
    const auto task = TRY(name.find());
    const auto fds = task->fds_ref();
    if (const auto cloexec = fds ? fds->close_on_exec(fd) : Errno(EBADF);
        cloexec.ok() && *cloexec == CloseOnExec::kYes) {
        flags |= O_CLOEXEC;
    }
    return format_text("pos:\t%lld\nflags:\t0%o\nmnt_id:\t%d\nino:\t%llu\n",
                       static_cast<long long>(position.ok() ? *position : 0), flags,
                       file->path() ? file->path().mount()->id() : 0,
                       stat.ok() ? static_cast<unsigned long long>(stat->st_ino) : 0ull);
}

/// /proc/PID/fd and /proc/PID/fdinfo.
class FdDirectory final : public SyntheticDirectory {
  public:
    FdDirectory(ProcFileSystem& fs, TaskName name, const Entry& entry, bool info, uint64_t ino)
        : SyntheticDirectory(fs, entry.mode & 0777, ino), name_(std::move(name)), info_(info) {}
    Result<InodeAttributes> attributes() override {
        return owned_by(TRY(SyntheticDirectory::attributes()), name_);
    }
    Result<RefPtr<Inode>> lookup(Task& task, std::string_view text) override {
        const auto number = parse_number(text);
        if (!number || *number < 0 || *number > INT32_MAX) {
            return Errno(ENOENT);
        }
        const Fd fd{static_cast<int32_t>(*number)};
        const auto file = TRY(file_at(name_, task, fd));
        if (!info_) {
            const uint32_t permissions =
                (file->readable() ? 0500u : 0100u) | (file->writable() ? 0300u : 0100u);
            return RefPtr<Inode>(make_ref<FdLink>(proc_of(*this), name_, fd, permissions));
        }
        return RefPtr<Inode>(make_ref<TextInode>(
            proc_of(*this), 0444,
            [name = name_, fd](Task& reader) { return fdinfo_text(name, reader, fd); }, nullptr,
            name_.ino(kFdInfo, static_cast<uint32_t>(to_integer(fd)))));
    }
    Result<std::vector<DirectoryEntry>> list(Task& reader) override {
        const auto task = TRY(name_.find());
        TRY(may_inspect(reader, *task));
        std::vector<DirectoryEntry> entries;
        if (const auto fds = task->fds_ref()) {
            for (const Fd fd : fds->numbers()) {
                const auto n = static_cast<uint32_t>(to_integer(fd));
                entries.push_back({std::to_string(n), name_.ino(info_ ? kFdInfo : kFdLink, n),
                                   static_cast<uint8_t>(info_ ? DT_REG : DT_LNK)});
            }
        }
        return entries;
    }
    /// Linux: fs/proc/fd.c:proc_fd_permission: always one's own, whatever the ids say.
    std::optional<Status> check_permission(Task& task, int) override {
        const auto target = name_.find();
        if (target.ok() && &(*target)->group() == &task.group()) {
            return Status();
        }
        return std::nullopt;
    }

  private:
    const TaskName name_;
    const bool info_;
};

// ---------------------------------------------------------------- ns

constexpr const char* kNamespaces[] = {"cgroup",           "ipc",  "mnt",  "net", "pid",
                                       "pid_for_children", "time", "user", "uts"};

/// A number for a namespace object that says nothing about where it lies.
uint32_t namespace_number(const void* object) {
    static const std::string* const salt = new std::string(random_uuid());
    const size_t h =
        std::hash<std::string>()(*salt + std::to_string(reinterpret_cast<uintptr_t>(object)));
    return 0xf0001000u + static_cast<uint32_t>(h & 0xffffff);
}

Result<std::string> namespace_text(const TaskName& name, std::string_view kind, Task& reader) {
    const auto task = TRY(name.find());
    TRY(may_inspect(reader, *task));
    if (kind == "pid" || kind == "pid_for_children") {
        return format_text("pid:[%u]", namespace_number(&task->pid_namespace()));
    }
    if (kind == "mnt") {
        const auto fs = task->fs_ref();
        return format_text("mnt:[%u]", namespace_number(fs ? &fs->mounts() : nullptr));
    }
    if (kind == "uts") {
        return format_text("uts:[%u]", namespace_number(&task->container()));
    }
    if (kind == "ipc") {
        return format_text("ipc:[%u]", namespace_number(&task->container().ipc()));
    }
    // One for the whole pod; Linux's numbers of the first ones.
    const uint32_t number = kind == "cgroup" ? 4026531835u
                            : kind == "time" ? 4026531834u
                            : kind == "user" ? 4026531837u
                                             : 4026531840u;
    return format_text("%.*s:[%u]", static_cast<int>(kind.size()), kind.data(), number);
}

RefPtr<Inode> make_namespace_directory(ProcFileSystem& fs, const TaskName& name, uint32_t mode,
                                       uint64_t ino) {
    auto lookup = [name, raw = &fs](Task&, std::string_view wanted) -> Result<RefPtr<Inode>> {
        for (uint32_t i = 0; i < std::size(kNamespaces); i++) {
            if (wanted == kNamespaces[i]) {
                return RefPtr<Inode>(make_ref<LinkInode>(
                    *raw,
                    [name, kind = kNamespaces[i]](Task& reader) {
                        return namespace_text(name, kind, reader);
                    },
                    [](Task&) -> Result<Path> {
                        return unsupported("open of /proc/PID/ns", ENOENT);
                    },
                    name.ino(kNsLink, i)));
            }
        }
        return Errno(ENOENT);
    };
    auto list = [name](Task&) -> Result<std::vector<DirectoryEntry>> {
        std::vector<DirectoryEntry> entries;
        for (uint32_t i = 0; i < std::size(kNamespaces); i++) {
            entries.push_back({kNamespaces[i], name.ino(kNsLink, i), DT_LNK});
        }
        return entries;
    };
    return make_ref<DynamicDirectory>(fs, mode, std::move(lookup), std::move(list), ino);
}

// ---------------------------------------------------------------- task

RefPtr<Inode> make_thread_list(ProcFileSystem& fs, const TaskName& name, uint32_t mode,
                               uint64_t ino) {
    auto lookup = [name, raw = &fs](Task&, std::string_view text) -> Result<RefPtr<Inode>> {
        const auto number = parse_number(text);
        const auto leader = TRY(name.find());
        const auto thread = !number || *number <= 0 || *number > PidNamespace::kMaxPid ? nullptr
                            : *number == leader->tid()
                                ? leader
                                : name.pids->find_task(static_cast<int32_t>(*number));
        if (!thread || &thread->group() != &leader->group()) {
            return Errno(ENOENT);
        }
        return make_task_directory(*raw,
                                   {name.pids, thread->tid(), thread->start_time_ns(), false});
    };
    auto list = [name](Task&) -> Result<std::vector<DirectoryEntry>> {
        const auto leader = TRY(name.find());
        std::vector<DirectoryEntry> entries;
        for (const auto& thread : TaskTable::tasks_of(leader->group())) {
            const TaskName each{name.pids, thread->tid(), thread->start_time_ns(), false};
            entries.push_back(
                {std::to_string(thread->tid()), each.ino(kTaskDirectoryKind, 0), DT_DIR});
        }
        std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
            return a.name.size() != b.name.size() ? a.name.size() < b.name.size() : a.name < b.name;
        });
        return entries;
    };
    return make_ref<DynamicDirectory>(fs, mode, std::move(lookup), std::move(list), ino);
}

// ---------------------------------------------------------------- the directory itself

class TaskDirectory final : public SyntheticDirectory {
  public:
    TaskDirectory(ProcFileSystem& fs, TaskName name)
        : SyntheticDirectory(fs, 0555, name.ino(kTaskDirectoryKind, 0)), name_(std::move(name)) {}

    Result<InodeAttributes> attributes() override {
        return owned_by(TRY(SyntheticDirectory::attributes()), name_);
    }

    Result<RefPtr<Inode>> lookup(Task&, std::string_view name) override {
        TRY(name_.find());
        ProcFileSystem& fs = proc_of(*this);
        for (uint32_t i = 0; i < std::size(kEntries); i++) {
            const Entry& e = kEntries[i];
            if (name != e.name || (e.process_only && !name_.process)) {
                continue;
            }
            const uint64_t ino = name_.ino(kEntry, i);
            if (e.text != nullptr) {
                return RefPtr<Inode>(make_ref<TaskTextInode>(fs, name_, e, ino));
            }
            if (e.path != nullptr) {
                return RefPtr<Inode>(make_ref<TaskLink>(fs, name_, e.path, ino));
            }
            if (name == "mem") {
                return RefPtr<Inode>(make_ref<MemoryInode>(fs, name_, e.mode, ino));
            }
            if (name == "ns") {
                return make_namespace_directory(fs, name_, e.mode & 0777, ino);
            }
            if (name == "task") {
                return make_thread_list(fs, name_, e.mode & 0777, ino);
            }
            if (name == "net") {
                return RefPtr<Inode>(fs.net());
            }
            return RefPtr<Inode>(make_ref<FdDirectory>(fs, name_, e, name == "fdinfo", ino));
        }
        return Errno(ENOENT);
    }

    Result<std::vector<DirectoryEntry>> list(Task&) override {
        TRY(name_.find());
        std::vector<DirectoryEntry> entries;
        for (uint32_t i = 0; i < std::size(kEntries); i++) {
            const Entry& e = kEntries[i];
            if (!e.process_only || name_.process) {
                const uint32_t type = (e.mode & S_IFMT) != 0 ? e.mode & S_IFMT : S_IFREG;
                entries.push_back({e.name, name_.ino(kEntry, i), directory_type(type)});
            }
        }
        return entries;
    }

  private:
    const TaskName name_;
};

}  // namespace

RefPtr<Inode> make_task_directory(ProcFileSystem& fs, TaskName name) {
    return make_ref<TaskDirectory>(fs, std::move(name));
}

}  // namespace moat::kernel
