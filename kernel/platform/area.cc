#include "kernel/platform/area.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "kernel/base/log.h"
#include "kernel/base/mutex.h"
#include "kernel/platform/host_process.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

namespace moat::platform {

namespace {

constexpr size_t kKeptAreas = 16;
Mutex<LockRank::kPlatform> kept_mu;
std::vector<Area> kept;

constexpr int64_t kAnswerTimeoutNs = 5'000'000'000;

long futex(const volatile void* word, int operation, uint32_t value, const timespec* timeout) {
    return ::syscall(SYS_futex, word, operation, value, timeout, nullptr, 0);
}

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

template <typename Reached>
Status wait_until(const volatile void* word, const HostProcess& process, Reached reached) {
    const int64_t give_up = now_ns() + kAnswerTimeoutNs;
    for (int spins = 0;; spins++) {
        const uint32_t seen =
            __atomic_load_n(static_cast<const volatile uint32_t*>(word), __ATOMIC_ACQUIRE);
        if (reached()) {
            return {};
        }
        if (process.dead()) {
            return Errno(ESRCH);
        }
        if (spins < 200) {  // the other side usually has a CPU of its own
            __builtin_ia32_pause();
            continue;
        }
        const timespec slice{0, 100'000'000};  // to look whether the process still lives
        futex(word, FUTEX_WAIT, seen, &slice);
        if (now_ns() > give_up) {
            LOG(kWarning, "platform", "spawner of host process %d does not answer", process.pid());
            return Errno(ESRCH);
        }
    }
}

}  // namespace

Result<Area> map_area(ScopedFd fd) {
    void* address =
        ::mmap(nullptr, MOAT_AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (address == MAP_FAILED) {
        return Errno(errno);
    }
    return Area{std::move(fd), address};
}

Result<Area> take_area() {
    {
        MutexLock lock(kept_mu);
        if (!kept.empty()) {
            Area area = std::move(kept.back());
            kept.pop_back();
            return area;
        }
    }
    ScopedFd fd(static_cast<int>(::memfd_create("moat-area", MFD_CLOEXEC)));
    if (!fd || ::ftruncate(fd.get(), MOAT_AREA_SIZE) != 0) {
        return Errno(errno);
    }
    return map_area(std::move(fd));
}

void give_back_area(Area area, int slot) {
    if (area.address == nullptr) {
        return;
    }
    // Registers and data of the last process must not be seen by the next. The page that the next
    // is sure to use stays: giving it up would cost the sentry a flush of its other threads' TLBs
    // now, and two faults then.
    constexpr off_t kPage = 4096;
    const off_t kept_page = MOAT_HEADER_SIZE + (static_cast<off_t>(slot) << MOAT_SLOT_SHIFT);
    memset(static_cast<char*>(area.address) + kept_page, 0, kPage);
    const auto punch = [&](off_t from, off_t to) {
        return ::fallocate(area.fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from,
                           to - from) == 0;
    };
    // A process that forks and soon ends leaves nothing but that page: seen in a tenth of the time.
    struct stat used;
    const bool only_kept_page =
        ::fstat(area.fd.get(), &used) == 0 && used.st_blocks * S_BLKSIZE <= kPage;
    if (only_kept_page || (punch(0, kept_page) && punch(kept_page + kPage, MOAT_AREA_SIZE))) {
        MutexLock lock(kept_mu);
        if (kept.size() < kKeptAreas) {
            kept.push_back(std::move(area));
            return;
        }
    }
    ::munmap(area.address, MOAT_AREA_SIZE);
}

void post_order(volatile AreaHeader& header, uint32_t order) {
    __atomic_store_n(&header.sequence, order, __ATOMIC_RELEASE);
    futex(&header.sequence, FUTEX_WAKE, 1, nullptr);
}

Status wait_for_word(volatile uint32_t* word, uint32_t value, const HostProcess& process) {
    return wait_until(word, process,
                      [&] { return __atomic_load_n(word, __ATOMIC_ACQUIRE) == value; });
}

Status wait_for_nonzero(volatile int64_t* word, const HostProcess& process) {
    return wait_until(word, process, [&] { return __atomic_load_n(word, __ATOMIC_ACQUIRE) != 0; });
}

void enable_sync_wake_up(int listener) {
    if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) != 0) {
        LOG_ONCE(kWarning, "platform",
                 "no synchronous wake-up of listeners (needs Linux 6.6): slow");
    }
}

}  // namespace moat::platform
