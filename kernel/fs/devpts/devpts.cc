#include "kernel/fs/devpts/devpts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/namei.h"
#include "kernel/fs/registry.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kRootIno = 1;
constexpr uint64_t kPtmxIno = 2;

class PtmxInode final : public SyntheticInode {
  public:
    PtmxInode(DevptsFileSystem& fs, uint32_t mode) : SyntheticInode(fs, S_IFCHR | mode, kPtmxIno) {
        set_rdev(makedev(kTtyAuxMajor, 2));
        set_changeable();
    }
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override {
        return static_cast<DevptsFileSystem&>(file_system()).open_ptmx(task, path, flags);
    }
};

class RootDirectory final : public SyntheticDirectory {
  public:
    explicit RootDirectory(DevptsFileSystem& fs) : SyntheticDirectory(fs, 0755, kRootIno) {}
    Result<RefPtr<Inode>> lookup(Task&, std::string_view name) override {
        auto& fs = static_cast<DevptsFileSystem&>(file_system());
        if (name == "ptmx") {
            return RefPtr<Inode>(&fs.ptmx());
        }
        if (auto slave = fs.find(name)) {
            return RefPtr<Inode>(std::move(slave));
        }
        return Errno(ENOENT);
    }
    Result<std::vector<DirectoryEntry>> list(Task&) override {
        return static_cast<DevptsFileSystem&>(file_system()).list();
    }
};

std::optional<uint32_t> parse_option(std::string_view text, int base) {
    uint32_t value = 0;
    if (text.empty() || text.size() > 10) {
        return std::nullopt;
    }
    for (const char c : text) {
        if (c < '0' || c >= '0' + base ||
            __builtin_mul_overflow(value, static_cast<uint32_t>(base), &value) ||
            __builtin_add_overflow(value, static_cast<uint32_t>(c - '0'), &value)) {
            return std::nullopt;
        }
    }
    return value;
}

struct Consoles {
    Mutex<LockRank::kFileSystem> mu;
    std::map<const Container*, RefPtr<Tty>> of GUARDED_BY(mu);
};
Consoles& consoles() {
    static Consoles* const instance = new Consoles;
    return *instance;
}

}  // namespace

Result<RefPtr<DevptsFileSystem>> DevptsFileSystem::create(const std::vector<std::string>& options) {
    Options o;
    for (const std::string_view option : options) {
        const size_t equals = option.find('=');
        const std::string_view key = option.substr(0, equals);
        if (key == "newinstance") {
            continue;  // always so
        }
        uint32_t* const field = key == "uid"        ? &o.uid
                                : key == "gid"      ? &o.gid
                                : key == "mode"     ? &o.mode
                                : key == "ptmxmode" ? &o.ptmx_mode
                                : key == "max"      ? &o.max
                                                    : nullptr;
        if (field == nullptr || equals == std::string_view::npos) {
            return Errno(EINVAL);
        }
        const bool octal = key == "mode" || key == "ptmxmode";
        const auto value = parse_option(option.substr(equals + 1), octal ? 8 : 10);
        if (!value) {
            return Errno(EINVAL);
        }
        *field = octal ? *value & 0777 : *value;
    }
    o.max = std::min(o.max, 1u << 20);
    return adopt_ref(new DevptsFileSystem(o));
}

DevptsFileSystem::DevptsFileSystem(const Options& options)
    : SyntheticFileSystem("devpts", DEVPTS_SUPER_MAGIC), options_(options) {
    set_dentries_stable(false);
    ptmx_ = make_ref<PtmxInode>(*this, options.ptmx_mode);
    set_root(make_ref<RootDirectory>(*this));
}

std::string DevptsFileSystem::mount_options() const {
    std::string text;
    if (options_.uid != UINT32_MAX) {
        append_text(text, ",uid=%u", options_.uid);
    }
    if (options_.gid != UINT32_MAX) {
        append_text(text, ",gid=%u", options_.gid);
    }
    append_text(text, ",mode=%03o,ptmxmode=%03o", options_.mode, options_.ptmx_mode);
    return text;
}

Result<RefPtr<Tty>> DevptsFileSystem::allocate(uint32_t uid, uint32_t gid) {
    MutexLock lock(mu_);
    uint32_t index = 0;
    for (const auto& [used, slave] : slaves_) {
        if (used != index) {
            break;
        }
        index++;
    }
    if (index >= options_.max) {
        return Errno(ENOSPC);
    }
    auto tty = make_ref<Tty>(index, device(),
                             [fs = RefPtr<DevptsFileSystem>(this), index] { fs->release(index); });
    auto inode = make_ref<PtySlaveInode>(*this, tty, options_.mode);
    inode->set_owner(options_.uid != UINT32_MAX ? options_.uid : uid,
                     options_.gid != UINT32_MAX ? options_.gid : gid);
    slaves_.emplace(index, std::move(inode));
    return tty;
}

void DevptsFileSystem::release(uint32_t index) {
    RefPtr<PtySlaveInode> gone;
    MutexLock lock(mu_);
    const auto it = slaves_.find(index);
    if (it != slaves_.end()) {
        gone = std::move(it->second);
        gone->unlink();
        slaves_.erase(it);
    }
    lock.unlock();
}

Result<RefPtr<File>> DevptsFileSystem::open_ptmx(Task& task, const Path& path, uint32_t flags) {
    const auto who = task.credentials();
    auto tty = TRY(allocate(who->fsuid, who->fsgid));
    tty->set_locked(true);  // until grantpt(3), unlockpt(3)
    RefPtr<File> file =
        make_ref<PtyMasterFile>(flags & ~static_cast<uint32_t>(O_NOCTTY), std::move(tty));
    file->set_path(path);
    return file;
}

RefPtr<PtySlaveInode> DevptsFileSystem::find(std::string_view name) {
    const auto index = parse_option(name, 10);
    if (!index || (name.size() > 1 && name[0] == '0')) {
        return nullptr;
    }
    MutexLock lock(mu_);
    const auto it = slaves_.find(*index);
    return it == slaves_.end() ? nullptr : it->second;
}

std::vector<DirectoryEntry> DevptsFileSystem::list() {
    std::vector<DirectoryEntry> entries{{"ptmx", kPtmxIno, DT_CHR}};
    MutexLock lock(mu_);
    for (const auto& [index, slave] : slaves_) {
        entries.push_back({std::to_string(index), slave->ino(), DT_CHR});
    }
    return entries;
}

PtySlaveInode::PtySlaveInode(DevptsFileSystem& fs, RefPtr<Tty> tty, uint32_t mode)
    : SyntheticInode(fs, S_IFCHR | mode, kFirstPtyIno + tty->index()), tty_(std::move(tty)) {
    set_rdev(tty_->rdev());
    set_changeable();
}

Result<RefPtr<File>> PtySlaveInode::open(Task& task, const Path& path, uint32_t flags) {
    auto file = TRY(tty_->open_near(task, flags));
    file->set_path(path);
    return file;
}

RefPtr<DevptsFileSystem> find_devpts(const MountNamespace& mounts) {
    const auto all = mounts.mounts();
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
        if (auto* fs = dynamic_cast<DevptsFileSystem*>(&(*it)->file_system())) {
            return RefPtr<DevptsFileSystem>(fs);
        }
    }
    return nullptr;
}

// ---------------------------------------------------------------- devices 5:0, 5:1, 5:2

void set_console(const Container& container, RefPtr<Tty> tty) {
    Consoles& all = consoles();
    MutexLock lock(all.mu);
    if (tty) {
        all.of[&container] = std::move(tty);
    } else {
        all.of.erase(&container);
    }
}

namespace {

Result<RefPtr<File>> open_tty(Task& task, const Path& path, uint64_t, uint32_t flags) {
    const auto tty = Tty::controlling(task);
    if (!tty) {
        return Errno(ENXIO);
    }
    auto file = TRY(tty->open_near(task, flags | O_NOCTTY));
    file->set_path(path);
    return file;
}

Result<RefPtr<File>> open_console(Task& task, const Path& path, uint64_t, uint32_t flags) {
    RefPtr<Tty> tty;
    {
        Consoles& all = consoles();
        MutexLock lock(all.mu);
        const auto it = all.of.find(&task.container());
        if (it != all.of.end()) {
            tty = it->second;
        }
    }
    if (!tty) {
        return Errno(ENXIO);  // a container without a terminal
    }
    auto file = TRY(tty->open_near(task, flags));
    file->set_path(path);
    return file;
}

/// A ptmx node that is not devpts's own: the devpts at "pts" beside it is meant (Linux:
/// fs/devpts/inode.c:devpts_mntget).
Result<RefPtr<File>> open_plain_ptmx(Task& task, const Path& path, uint64_t, uint32_t flags) {
    if (auto* own = dynamic_cast<DevptsFileSystem*>(&path.dentry()->file_system())) {
        return own->open_ptmx(task, path, flags);
    }
    const auto directory = path.dentry()->parent();
    if (!directory) {
        return Errno(ENODEV);
    }
    const Path pts = TRY(lookup_child(task, Path(path.mount_ref(), directory), "pts"));
    auto* const fs = dynamic_cast<DevptsFileSystem*>(&pts.dentry()->file_system());
    if (fs == nullptr || !pts.dentry()->is_root()) {
        return Errno(ENODEV);
    }
    const Path ptmx = TRY(lookup_child(task, pts, "ptmx"));
    return fs->open_ptmx(task, ptmx, flags);
}

}  // namespace

void register_devpts() {
    register_file_system(
        "devpts", GuestMayMount::kYes,
        [](const FileSystemRequest& request) -> Result<RefPtr<FileSystem>> {
            return RefPtr<FileSystem>(TRY(DevptsFileSystem::create(request.options)));
        });
    register_character_device(kTtyAuxMajor, 0, open_tty);
    register_character_device(kTtyAuxMajor, 1, open_console);
    register_character_device(kTtyAuxMajor, 2, open_plain_ptmx);
}

}  // namespace moat::kernel
