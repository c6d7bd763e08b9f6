#include "kernel/mm/address_space.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/fs/dentry.h"
#include "kernel/fs/file.h"
#include "kernel/fs/vfs.h"
#include "kernel/ipc/shm.h"
#include "kernel/platform/layout.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

// Who a host process' address space is. A leaf: held while the owner pointer is read or cleared.
Mutex<LockRank::kAddressSpace> owners_mu;

/// include/uapi/linux/fs.h: struct procmap_query, Linux 6.11.
struct ProcmapQuery {
    uint64_t size, query_flags, query_address;
    uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
    uint32_t dev_major, dev_minor, name_size, build_id_size;
    uint64_t name_address, build_id_address;
};
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, ProcmapQuery);
constexpr uint64_t kVmaShared = 8;  // PROCMAP_QUERY_VMA_SHARED

std::string read_host_file(int pid, const char* name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    const ScopedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    std::string text;
    if (!fd) {
        return text;
    }
    char piece[8192];
    for (ssize_t n; (n = ::read(fd.get(), piece, sizeof piece)) > 0;) {
        text.append(piece, static_cast<size_t>(n));
    }
    return text;
}

}  // namespace

bool is_clear_of_stub(uint64_t address, uint64_t size) {
    uint64_t end;
    const uint64_t start = page_down(address);
    if (size > uint64_t{1} << 47 ||
        __builtin_add_overflow(start, page_up(size + (address - start)), &end)) {
        return false;
    }
    return end <= MOAT_STUB_BASE || start >= MOAT_STUB_END;
}

AddressSpace::AddressSpace(RefPtr<platform::HostProcess> process)
    : process_(std::move(process)), segments_(std::make_unique<ShmAttachments>()) {
    process_->owner.store(this);
}

AddressSpace::~AddressSpace() {
    end_executing();
    {
        MutexLock lock(owners_mu);
        process_->owner.store(nullptr);
    }
    process_->kill();
}

std::vector<RefPtr<ThreadGroup>> AddressSpace::users_of(platform::HostProcess& process) {
    std::vector<RefPtr<ThreadGroup>> found;
    RefPtr<AddressSpace> mm;
    {
        MutexLock lock(owners_mu);
        auto* owner = static_cast<AddressSpace*>(process.owner.load());
        if (owner != nullptr && owner->try_ref()) {
            mm = RefPtr<AddressSpace>::adopt(owner);
        }
    }
    if (mm) {
        MutexLock lock(mm->mu_);
        for (ThreadGroup* group : mm->users_) {
            found.emplace_back(group);
        }
    }
    return found;
}

size_t AddressSpace::read(void* destination, GuestAddr source, size_t size) const {
    return platform::read_memory(*process_, destination, to_integer(source), size);
}

size_t AddressSpace::write(GuestAddr destination, const void* source, size_t size) const {
    // The stub's area is writable memory too: nothing a guest names as a buffer may lie there.
    if (!is_clear_of_stub(to_integer(destination), size)) {
        return 0;
    }
    return platform::write_memory(*process_, to_integer(destination), source, size);
}

size_t AddressSpace::write_signal_stack(uint64_t destination, const void* source,
                                        size_t size) const {
    return platform::write_memory(*process_, destination, source, size);
}

void AddressSpace::add_user(ThreadGroup& group) {
    MutexLock lock(mu_);
    users_.push_back(&group);
    user_count_.store(static_cast<int>(users_.size()), std::memory_order_relaxed);
}

void AddressSpace::remove_user(ThreadGroup& group) {
    bool last = false;
    {
        MutexLock lock(mu_);
        const auto it = std::find(users_.begin(), users_.end(), &group);
        if (it != users_.end()) {
            users_.erase(it);
        }
        user_count_.store(static_cast<int>(users_.size()), std::memory_order_relaxed);
        last = users_.empty();
    }
    if (last) {
        segments_->clear(IpcActor::of(group));
        process_->kill();
    }
}

void AddressSpace::copy_layout_from(const AddressSpace& other) {
    Layout layout = other.layout();
    RefPtr<File> executable = other.executable();
    std::map<std::pair<uint64_t, uint64_t>, RefPtr<File>> files;
    {
        MutexLock lock(other.mu_);
        files = other.files_;
    }
    set_executable(std::move(executable));
    MutexLock lock(mu_);
    layout_ = std::move(layout);
    files_ = std::move(files);
}

AddressSpace::Layout AddressSpace::layout() const {
    MutexLock lock(mu_);
    return layout_;
}

void AddressSpace::set_layout(Layout layout) {
    MutexLock lock(mu_);
    layout_ = std::move(layout);
}

void AddressSpace::brk_state(uint64_t& start, uint64_t& brk, uint64_t& mapped_end) const {
    MutexLock lock(mu_);
    start = layout_.brk_start;
    brk = layout_.brk;
    mapped_end = layout_.brk_mapped_end;
}

void AddressSpace::set_brk(uint64_t brk, uint64_t mapped_end) {
    MutexLock lock(mu_);
    layout_.brk = brk;
    layout_.brk_mapped_end = mapped_end;
}

RefPtr<File> AddressSpace::executable() const {
    MutexLock lock(mu_);
    return executable_;
}

void AddressSpace::set_executable(RefPtr<File> file) {
    // Writers cannot come between: the file's own hold, or the parent's, is still there.
    const bool held =
        file && file->path() && file->path().dentry()->inode()->begin_executing().ok();
    end_executing();
    MutexLock lock(mu_);
    std::swap(executable_, file);
    executing_ = held;
    lock.unlock();
}

void AddressSpace::end_executing() {
    MutexLock lock(mu_);
    if (std::exchange(executing_, false)) {
        executable_->path().dentry()->inode()->end_executing();
    }
}

void AddressSpace::note_mapped_file(int host_fd, RefPtr<File> file) {
    struct stat st;
    if (::fstat(host_fd, &st) != 0) {
        return;
    }
    MutexLock lock(mu_);
    std::swap(files_[{st.st_dev, st.st_ino}], file);
    lock.unlock();
}

std::string AddressSpace::maps_text(const Path& root) const { return translate_maps("maps", root); }

std::string AddressSpace::smaps_text(const Path& root) const {
    return translate_maps("smaps", root);
}

std::string AddressSpace::translate_maps(const char* host_file, const Path& root) const {
    const std::string host = read_host_file(process_->pid(), host_file);
    const Layout layout = this->layout();
    std::string text;
    bool skipping = false;
    for (size_t at = 0; at < host.size();) {
        const size_t end = std::min(host.find('\n', at), host.size() - 1);
        const std::string line = host.substr(at, end - at + 1);
        at = end + 1;
        unsigned long start, stop, offset, inode;
        unsigned major, minor;
        char permissions[5];
        int name_at = 0;
        if (sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &start, &stop, permissions,
                   &offset, &major, &minor, &inode, &name_at) < 7) {
            if (!skipping) {
                text += line;  // smaps: the lines below a mapping's
            }
            continue;
        }
        skipping = stop > MOAT_STUB_BASE && start < MOAT_STUB_END;
        if (skipping) {
            continue;
        }
        std::string name = line.substr(static_cast<size_t>(name_at));
        if (!name.empty() && name.back() == '\n') {
            name.pop_back();  // %n has gone beyond it already where there is no name
        }
        uint64_t shown_inode = 0;
        uint64_t shown_device = 0;
        if (inode != 0) {
            RefPtr<File> file;
            {
                MutexLock lock(mu_);
                const auto it = files_.find({makedev(major, minor), inode});
                if (it != files_.end()) {
                    file = it->second;
                }
            }
            name.clear();
            if (file) {
                name = file_name(*file, root);
                if (Inode* inode_object = file->path() ? file->path().dentry()->inode() : nullptr) {
                    if (const auto attributes = inode_object->attributes(); attributes.ok()) {
                        shown_inode = attributes->ino;
                        shown_device = inode_object->file_system().device();
                    }
                }
            }
        } else if (platform::host_keeps_heap()
                       ? name == "[heap]"
                       : start == layout.brk_start && stop == layout.brk_mapped_end) {
            name = "[heap]";
        } else if (layout.stack_top > start && layout.stack_top <= stop) {
            name = "[stack]";
        } else if (name.rfind("[v", 0) != 0) {
            name.clear();
        }
        char head[128];
        snprintf(head, sizeof head, "%08lx-%08lx %s %08lx %02x:%02x %lu", start, stop, permissions,
                 offset, ::major(shown_device), ::minor(shown_device),
                 static_cast<unsigned long>(shown_inode));
        std::string shown = head;
        if (!name.empty()) {
            shown.resize(std::max<size_t>(shown.size() + 1, 73), ' ');
            shown += name;
        }
        text += shown + "\n";
    }
    return text;
}

MemoryUsage AddressSpace::usage() const {
    const std::string text = read_host_file(process_->pid(), "statm");
    unsigned long size = 0, resident = 0, shared = 0, code = 0, lib = 0, data = 0;
    sscanf(text.c_str(), "%lu %lu %lu %lu %lu %lu", &size, &resident, &shared, &code, &lib, &data);
    const uint64_t ours = (MOAT_STUB_END - MOAT_ALT_BASE + MOAT_AREA_SIZE) / kPageSize;
    MemoryUsage usage;
    usage.virtual_bytes = (size > ours ? size - ours : size) * kPageSize;
    usage.resident_bytes = resident * kPageSize;
    usage.shared_bytes = shared * kPageSize;
    const Layout l = layout();
    usage.text_bytes = l.code_end - l.code_start;
    usage.data_bytes = data * kPageSize;
    return usage;
}

bool AddressSpace::shared_key(GuestAddr address, uint64_t& object, uint64_t& offset) const {
    ProcmapQuery query{};
    query.size = sizeof query;
    query.query_address = to_integer(address);
    MutexLock lock(mu_);
    if (!maps_fd_) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/maps", process_->pid());
        maps_fd_.reset(::open(path, O_RDONLY | O_CLOEXEC));
    }
    if (!maps_fd_ || ::ioctl(maps_fd_.get(), kProcmapQuery, &query) != 0 ||
        (query.vma_flags & kVmaShared) == 0) {
        return false;
    }
    object = query.inode ^ (static_cast<uint64_t>(query.dev_minor) << 44) ^
             (static_cast<uint64_t>(query.dev_major) << 52);
    offset = query.vma_offset + (to_integer(address) - query.vma_start);
    return true;
}

}  // namespace moat::kernel
