#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <fcntl.h>
#include <limits.h>

#include <charconv>

#include "kernel/fs/mount.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/task/credentials.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr long kTmpfsMagic = 0x01021994;
constexpr uint32_t kNoExecSeal = 8;   // MFD_NOEXEC_SEAL of Linux 6.3
constexpr uint32_t kSealExec = 0x20;  // F_SEAL_EXEC

uint64_t machine_memory() {
    struct sysinfo info {};
    sysinfo(&info);
    return static_cast<uint64_t>(info.totalram) * info.mem_unit;
}

/// "64m", "50%", "1048576" (tmpfs(5)).
Result<uint64_t> parse_size(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) {
        return Errno(EINVAL);
    }
    const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
    if (unit.empty()) {
        return value;
    }
    if (unit == "%") {
        return machine_memory() / 100 * value;
    }
    if (unit.size() != 1) {
        return Errno(EINVAL);
    }
    int shift = 0;
    switch (unit[0] | 0x20) {
        case 'k':
            shift = 10;
            break;
        case 'm':
            shift = 20;
            break;
        case 'g':
            shift = 30;
            break;
        case 't':
            shift = 40;
            break;
        default:
            return Errno(EINVAL);
    }
    if (value > UINT64_MAX >> shift) {
        return Errno(EINVAL);
    }
    return value << shift;
}

Result<uint32_t> parse_number(std::string_view text, int base) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc() || end != text.data() + text.size()) {
        return Errno(EINVAL);
    }
    return value;
}

}  // namespace

Result<TmpfsOptions> TmpfsOptions::parse(const std::vector<std::string>& options) {
    TmpfsOptions parsed;
    for (const std::string& option : options) {
        const size_t equals = option.find('=');
        const std::string_view key = std::string_view(option).substr(0, equals);
        const std::string_view value =
            equals == std::string::npos ? "" : std::string_view(option).substr(equals + 1);
        if (key == "size") {
            parsed.size = TRY(parse_size(value));
        } else if (key == "nr_blocks") {
            parsed.size = TRY(parse_size(value)) * kPageSize;
        } else if (key == "nr_inodes") {
            parsed.inodes = TRY(parse_size(value));
        } else if (key == "mode") {
            parsed.mode = TRY(parse_number(value, 8)) & 07777;
        } else if (key == "uid") {
            parsed.uid = TRY(parse_number(value, 10));
        } else if (key == "gid") {
            parsed.gid = TRY(parse_number(value, 10));
        } else if (key == "huge" || key == "mpol" || key == "inode64" || key == "inode32" ||
                   key == "noswap" || key.empty()) {
            continue;
        } else {
            return Errno(EINVAL);
        }
    }
    return parsed;
}

RefPtr<TmpfsFileSystem> TmpfsFileSystem::create(const TmpfsOptions& options) {
    auto fs = adopt_ref(new TmpfsFileSystem(options));
    fs->inodes_.store(1, std::memory_order_relaxed);
    fs->root_ = adopt_ref(
        new TmpfsDirectory(*fs, NewInode{S_IFDIR | options.mode, options.uid, options.gid, 0}));
    fs->root_->parent_ = fs->root_.get();
    return fs;
}

TmpfsFileSystem::TmpfsFileSystem(const TmpfsOptions& options)
    : options_(options),
      max_pages_((options.size != 0 ? options.size : machine_memory() / 2) / kPageSize),
      max_inodes_(options.inodes != 0 ? options.inodes : machine_memory() / 2 / kPageSize) {}

TmpfsFileSystem::~TmpfsFileSystem() = default;

RefPtr<Inode> TmpfsFileSystem::root() { return root_; }
RefPtr<TmpfsDirectory> TmpfsFileSystem::root_directory() { return root_; }

Result<struct statfs> TmpfsFileSystem::statistics() {
    struct statfs st {};
    st.f_type = kTmpfsMagic;
    st.f_bsize = kPageSize;
    st.f_frsize = kPageSize;
    st.f_namelen = NAME_MAX;
    const uint64_t used = std::min(pages_.load(std::memory_order_relaxed), max_pages_);
    st.f_blocks = max_pages_;
    st.f_bfree = st.f_bavail = max_pages_ - used;
    st.f_files = max_inodes_;
    st.f_ffree = max_inodes_ - std::min(inodes_.load(std::memory_order_relaxed), max_inodes_);
    return st;
}

std::string TmpfsFileSystem::mount_options() const {
    std::string text;
    if (options_.size != 0) {
        text += ",size=" + std::to_string(max_pages_ * kPageSize / 1024) + "k";
    }
    if (options_.inodes != 0) {
        text += ",nr_inodes=" + std::to_string(max_inodes_);
    }
    if (options_.mode != 01777) {
        char mode[16];
        snprintf(mode, sizeof mode, ",mode=%o", options_.mode);
        text += mode;
    }
    if (options_.uid != 0) {
        text += ",uid=" + std::to_string(options_.uid);
    }
    if (options_.gid != 0) {
        text += ",gid=" + std::to_string(options_.gid);
    }
    return text;
}

Status TmpfsFileSystem::take_inode() {
    if (inodes_.fetch_add(1, std::memory_order_relaxed) >= max_inodes_) {
        inodes_.fetch_sub(1, std::memory_order_relaxed);
        return Errno(ENOSPC);
    }
    return {};
}

uint64_t TmpfsFileSystem::take_pages(uint64_t pages) {
    uint64_t used = pages_.load(std::memory_order_relaxed);
    uint64_t granted;
    do {
        granted = used >= max_pages_ ? 0 : std::min(pages, max_pages_ - used);
    } while (!pages_.compare_exchange_weak(used, used + granted, std::memory_order_relaxed));
    return granted;
}

Result<RefPtr<TmpfsInode>> TmpfsFileSystem::make_inode(const NewInode& what) {
    TRY(take_inode());
    switch (what.mode & S_IFMT) {
        case S_IFDIR:
            return RefPtr<TmpfsInode>(adopt_ref(new TmpfsDirectory(*this, what)));
        case S_IFREG:
            return RefPtr<TmpfsInode>(adopt_ref(new TmpfsRegular(*this, what)));
        default:
            return adopt_ref(new TmpfsInode(*this, what));
    }
}

Result<RefPtr<TmpfsInode>> TmpfsFileSystem::make_symlink_inode(std::string_view target,
                                                               const NewInode& what) {
    TRY(take_inode());
    return RefPtr<TmpfsInode>(adopt_ref(new TmpfsSymlink(*this, target, what)));
}

namespace {

/// The kernel's own mount for files without names (Linux: shm_mnt). Never in a mount tree.
struct KernelTmpfs {
    RefPtr<TmpfsFileSystem> fs = TmpfsFileSystem::create({});
    RefPtr<Mount> mount = make_ref<Mount>(fs, fs->root_dentry(), 0, "tmpfs");
};

KernelTmpfs& kernel_tmpfs() {
    static KernelTmpfs* const instance = new KernelTmpfs();
    return *instance;
}

}  // namespace

RefPtr<TmpfsRegular> make_shared_memory() {
    auto made = kernel_tmpfs().fs->make_inode(NewInode{S_IFREG | 0600, 0, 0, 0});
    CHECK(made.ok());
    return adopt_ref(static_cast<TmpfsRegular*>(made->leak()));
}

Result<RefPtr<File>> make_memfd(Task& task, std::string_view name, uint32_t flags) {
    KernelTmpfs& kernel = kernel_tmpfs();
    const CredentialsRef who = task.credentials();
    const uint32_t mode = (flags & kNoExecSeal) != 0 ? 0666 : 0777;
    RefPtr<TmpfsInode> inode =
        TRY(kernel.fs->make_inode(NewInode{S_IFREG | mode, who->fsuid, who->fsgid, 0}));
    if ((flags & (MFD_ALLOW_SEALING | kNoExecSeal)) != 0) {
        auto& regular = static_cast<TmpfsRegular&>(*inode);
        regular.allow_seals();
        if ((flags & kNoExecSeal) != 0) {
            TRY(regular.add_seals(kSealExec));
        }
    }
    const Path path(kernel.mount,
                    Dentry::make_detached(*kernel.fs, inode, "memfd:" + std::string(name)));
    RefPtr<File> file = TRY(inode->open(task, path, O_RDWR | O_LARGEFILE));
    file->set_path(path);
    return file;
}

void register_tmpfs() {
    register_file_system("tmpfs", GuestMayMount::kYes,
                         [](const FileSystemRequest& request) -> Result<RefPtr<FileSystem>> {
                             const TmpfsOptions options = TRY(TmpfsOptions::parse(request.options));
                             return RefPtr<FileSystem>(TmpfsFileSystem::create(options));
                         });
}

}  // namespace moat::kernel
