#include "kernel/task/task.h"

#include <limits.h>
#include <string.h>

#include <algorithm>

#include "kernel/fs/fd_table.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_table.h"
#include "kernel/task/thread_group.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

Task::Task(RefPtr<ThreadGroup> group, int32_t tid)
    : tid_(tid), group_(std::move(group)), start_time_ns_(monotonic_ns()) {}

Task::~Task() = default;

int32_t Task::pid() const { return group_->pid(); }

Container& Task::container() const { return group_->container(); }

PidNamespace& Task::pid_namespace() const { return group_->pid_namespace(); }

std::string Task::name() const {
    MutexLock lock(mu_);
    return name_;
}

void Task::set_name(std::string_view name) {
    MutexLock lock(mu_);
    const size_t n = std::min(name.size(), sizeof name_ - 1);
    memset(name_, 0, sizeof name_);
    memcpy(name_, name.data(), n);
}

CredentialsRef Task::credentials() const {
    MutexLock lock(mu_);
    return credentials_;
}

void Task::set_credentials(CredentialsRef credentials) {
    MutexLock lock(mu_);
    credentials_.operator=(std::move(credentials));
}

FdTable& Task::fds() const { return *fds_; }

FsContext& Task::fs() const { return *fs_; }

AddressSpace& Task::mm() const { return *mm_; }

RefPtr<AddressSpace> Task::mm_ref() const {
    MutexLock lock(mu_);
    return mm_;
}

RefPtr<FdTable> Task::fds_ref() const {
    MutexLock lock(mu_);
    return fds_;
}

RefPtr<FsContext> Task::fs_ref() const {
    MutexLock lock(mu_);
    return fs_;
}

RefPtr<platform::HostThread> Task::thread_ref() const {
    MutexLock lock(mu_);
    return thread_;
}

void Task::set_thread(RefPtr<platform::HostThread> thread) {
    MutexLock lock(mu_);
    std::swap(thread_, thread);
    lock.unlock();
}

void Task::set_fds(RefPtr<FdTable> fds) {
    MutexLock lock(mu_);
    std::swap(fds_, fds);
    lock.unlock();  // the old one's last files may close, which takes locks
}

void Task::set_fs(RefPtr<FsContext> fs) {
    MutexLock lock(mu_);
    std::swap(fs_, fs);
    lock.unlock();
}

void Task::set_mm(RefPtr<AddressSpace> mm) {
    MutexLock lock(mu_);
    std::swap(mm_, mm);
    lock.unlock();
}

uint64_t Task::rlimit(int resource) const { return group_->limit(resource).rlim_cur; }

Status Task::copy_in_bytes(void* destination, GuestAddr source, size_t size) {
    if (mm_->read(destination, source, size) != size) {
        return Errno(EFAULT);
    }
    return {};
}

Status Task::copy_out_bytes(GuestAddr destination, const void* source, size_t size) {
    if (mm_->write(destination, source, size) != size) {
        return Errno(EFAULT);
    }
    return {};
}

Result<std::string> Task::copy_in_string(UserPtr<const char> source, size_t max, Errno too_long) {
    std::string text;
    GuestAddr at = source.address();
    // Piece by piece, never across a page that the string may not reach.
    while (text.size() < max) {
        char piece[1024];
        const uint64_t to_page_end = kPageSize - (to_integer(at) & (kPageSize - 1));
        const size_t want = std::min<uint64_t>({sizeof piece, to_page_end, max - text.size()});
        const size_t got = mm_->read(piece, at, want);
        if (got == 0) {
            return Errno(EFAULT);
        }
        if (const void* end = memchr(piece, 0, got)) {
            text.append(piece, static_cast<const char*>(end) - piece);
            return text;
        }
        if (got < want) {
            return Errno(EFAULT);
        }
        text.append(piece, got);
        at = at + got;
    }
    return too_long;
}

Result<std::string> Task::copy_in_path(UserPtr<const char> source) {
    return copy_in_string(source, PATH_MAX, Errno(ENAMETOOLONG));
}

void Task::set_temporary_mask(uint64_t mask) {
    if (!restore_mask_) {
        saved_mask_ = signal_mask();
        restore_mask_ = true;
    }
    signal_mask_.store(mask & ~kUnblockable);
    interrupt_.store(true);  // what the new mask lets through may be pending: look
}

char Task::state_letter() const {
    if (group_->state() >= ThreadGroup::State::kZombie || serving_.load() == Serving::kGone) {
        return 'Z';
    }
    if (stopped_.load(std::memory_order_relaxed)) {
        return 'T';
    }
    if (serving_.load() == Serving::kGuest) {
        const RefPtr<platform::HostThread> thread = thread_ref();
        return thread && thread->sleeps() ? 'S' : 'R';
    }
    return (wait_state_.load(std::memory_order_relaxed) & kStateMask) == kWaiting ? 'S' : 'R';
}

const char* Task::blocked_in() const {
    if ((wait_state_.load(std::memory_order_relaxed) & kStateMask) != kWaiting) {
        return "";
    }
    const SyscallEntry* entry = find_syscall(arguments_.number);
    return entry == nullptr ? "" : entry->name;
}

void Task::on_event(PollMask mask) {
    if ((mask & kPokeEvent) != 0) {
        TaskRunner::poke_now(*this);
    } else {
        TaskRunner::post_flag(*this, kFlagReady);
    }
}

}  // namespace moat::kernel
