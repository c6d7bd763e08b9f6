#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/path.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/platform/host_process.h"

namespace moat::kernel {

class File;
class ShmAttachments;
class ThreadGroup;

/// Text and numbers of memory use, from the host.
struct MemoryUsage {
    uint64_t virtual_bytes = 0;
    uint64_t resident_bytes = 0;
    uint64_t shared_bytes = 0;
    uint64_t text_bytes = 0;
    uint64_t data_bytes = 0;
};

/// A guest's address space: one host process. The host's VMAs are the truth about what is mapped;
/// here is only what the host cannot know. Shared by threads and, until exec, by a vfork child.
class AddressSpace final : public RefCounted {
  public:
    explicit AddressSpace(RefPtr<platform::HostProcess> process);
    ~AddressSpace() override;

    platform::HostProcess& process() const { return *process_; }

    // Bytes moved before the first fault.
    size_t read(void* destination, GuestAddr source, size_t size) const;
    size_t write(GuestAddr destination, const void* source, size_t size) const;

    /// Into a thread's own signal stack, where only signal frames go.
    size_t write_signal_stack(uint64_t destination, const void* source, size_t size) const;

    /// Guest processes in it; the host process is killed when the last has left.
    void add_user(ThreadGroup& group);
    void remove_user(ThreadGroup& group);
    int users() const { return user_count_.load(std::memory_order_relaxed); }
    /// The guest processes of a host process; empty when nobody uses it any more.
    static std::vector<RefPtr<ThreadGroup>> users_of(platform::HostProcess& process);

    /// For fork: everything but the host process.
    void copy_layout_from(const AddressSpace& other);

    struct Layout {
        uint64_t brk_start = 0;
        // Where the host does not keep the heap (platform::host_keeps_heap()):
        uint64_t brk = 0;
        uint64_t brk_mapped_end = 0;  ///< page-aligned; beyond brk, grown in larger steps
        uint64_t stack_top = 0;
        uint64_t stack_bottom = 0;
        uint64_t arg_start = 0, arg_end = 0;
        uint64_t env_start = 0, env_end = 0;
        uint64_t code_start = 0, code_end = 0;
        std::vector<uint64_t> auxv;
    };
    Layout layout() const;
    void set_layout(Layout layout);
    void brk_state(uint64_t& start, uint64_t& brk, uint64_t& mapped_end) const;
    void set_brk(uint64_t brk, uint64_t mapped_end);

    RefPtr<File> executable() const;
    /// Nobody may write the file while it is executed: from now on until end_executing(), or the
    /// end of the address space. The caller has opened it by open_executable().
    void set_executable(RefPtr<File> file);
    /// Its last user is about to end; before anybody hears of that.
    void end_executing();
    /// Remembers whose file a host descriptor is, so that maps_text() can show its name.
    void note_mapped_file(int host_fd, RefPtr<File> file);

    /// System V segments in it (kernel/ipc/shm.h).
    ShmAttachments& segments() const { return *segments_; }

    /// /proc/PID/maps: the host's, without what is ours, with guests' names. Ends in a newline.
    std::string maps_text(const Path& root) const;
    /// /proc/PID/smaps likewise.
    std::string smaps_text(const Path& root) const;
    MemoryUsage usage() const;

    /// The identity of the memory behind a shared mapping, for futexes: false where `address` is
    /// private or unmapped.
    bool shared_key(GuestAddr address, uint64_t& object, uint64_t& offset) const;

  private:
    std::string translate_maps(const char* host_file, const Path& root) const;

    const RefPtr<platform::HostProcess> process_;
    const std::unique_ptr<ShmAttachments> segments_;
    std::atomic<int> user_count_{0};
    mutable Mutex<LockRank::kAddressSpace> mu_;
    std::vector<ThreadGroup*> users_ GUARDED_BY(mu_);
    Layout layout_ GUARDED_BY(mu_);
    RefPtr<File> executable_ GUARDED_BY(mu_);
    bool executing_ GUARDED_BY(mu_) = false;  // holds a begin_executing() of executable_'s inode
    std::map<std::pair<uint64_t, uint64_t>, RefPtr<File>> files_ GUARDED_BY(mu_);  // by dev, ino
    mutable ScopedFd maps_fd_ GUARDED_BY(mu_);  // for PROCMAP_QUERY; opened when first needed
};

/// Whether [address, address + size) stays clear of the stub area; `size` is rounded to pages as
/// the host will do, and an overflow is no.
bool is_clear_of_stub(uint64_t address, uint64_t size);

}  // namespace moat::kernel
