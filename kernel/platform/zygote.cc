// The root zygote, the zygote of each container, and the pool of clean processes for execve.

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "kernel/base/log.h"
#include "kernel/platform/area.h"
#include "kernel/platform/filter.h"
#include "kernel/platform/host_process.h"
#include "kernel/platform/pool.h"
#include "stub_symbols.h"

extern "C" const char moat_stub_image[];
extern "C" const char moat_stub_image_end[];

namespace moat::platform {

namespace {

std::vector<ScopedFd> root_cgroups;  // set and used by the main thread, before there is another

RefPtr<HostProcess> root_zygote;
uint64_t vdso = 0;

/// Clean processes kept ready per container. An idle one costs about 100 KiB of host kernel memory.
constexpr size_t kPoolSize = 2;

Result<ScopedFd> write_stub_image() {
    std::vector<char> image(moat_stub_image, moat_stub_image_end);
    const auto put = [&](const std::vector<sock_filter>& filter, uint64_t program, uint64_t code) {
        const uint64_t length = filter.size();
        memcpy(&image[program - MOAT_STUB_BASE], &length, sizeof length);
        memcpy(&image[code - MOAT_STUB_BASE], filter.data(), filter.size() * sizeof(sock_filter));
    };
    put(build_guest_filter(host_keeps_heap()), MOAT_STUB_FILTER_PROGRAM, MOAT_STUB_FILTER);
    put(build_ending_filter(kMemoryCalls), MOAT_STUB_END_MEMORY_FILTER_PROGRAM,
        MOAT_STUB_END_MEMORY_FILTER);
    put(build_ending_filter(kFutexCalls), MOAT_STUB_END_FUTEX_FILTER_PROGRAM,
        MOAT_STUB_END_FUTEX_FILTER);
    ScopedFd fd(static_cast<int>(::memfd_create("moat-stub", MFD_CLOEXEC)));
    if (!fd) {
        return Errno(errno);
    }
    if (::write(fd.get(), image.data(), image.size()) != static_cast<ssize_t>(image.size())) {
        return Errno(errno);
    }
    return fd;
}

/// The host's vDSO is at the same place in every process forked from the zygote.
uint64_t find_vdso(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE* maps = fopen(path, "re");
    if (maps == nullptr) {
        return 0;
    }
    char line[512];
    uint64_t found = 0;
    while (fgets(line, sizeof line, maps) != nullptr) {
        if (strstr(line, "[vdso]") != nullptr) {
            found = strtoull(line, nullptr, 16);
        }
    }
    fclose(maps);
    return found;
}

}  // namespace

uint64_t vdso_address() { return vdso; }

void HostProcess::Pool::refill_loop() {
    for (;;) {
        RefPtr<HostProcess> zygote;
        {
            std::unique_lock lock(pool_mu);
            pool_cv.wait(lock, [] { return !to_refill.empty(); });
            zygote = std::move(to_refill.front());
            to_refill.pop_front();
        }
        auto made = zygote->make_clean();
        std::unique_lock lock(pool_mu);
        zygote->pool_->wanted = false;
        if (made.ok() && !zygote->dead()) {
            zygote->pool_->ready.push_back(std::move(made).value());
            if (zygote->pool_->ready.size() < kPoolSize) {
                zygote->pool_->wanted = true;
                to_refill.push_back(zygote);
            }
        }
    }
}

std::mutex HostProcess::Pool::pool_mu;
std::condition_variable HostProcess::Pool::pool_cv;
std::deque<RefPtr<HostProcess>> HostProcess::Pool::to_refill;
bool HostProcess::Pool::running = false;

void set_root_zygote_cgroups(std::vector<ScopedFd> cgroups) { root_cgroups = std::move(cgroups); }

Status HostProcess::start_platform() {
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);

    watch_deaths();
    const ScopedFd image = TRY(write_stub_image());
    Area area = TRY(take_area());
    const pid_t pid = ::fork();
    if (pid < 0) {
        return Errno(errno);
    }
    if (pid == 0) {
        for (const ScopedFd& cgroup : root_cgroups) {
            if (::write(cgroup.get(), "0", 1) != 1) {
                ::_exit(41);
            }
            ::close(cgroup.get());  // no guest may have it
        }
        ::dup2(area.fd.get(), MOAT_AREA_FD);
        ::personality(ADDR_NO_RANDOMIZE);
        char name[] = "moat-guest";
        char* arguments[] = {name, nullptr};
        char* environment[] = {nullptr};
        ::syscall(SYS_execveat, image.get(), "", arguments, environment, AT_EMPTY_PATH);
        ::_exit(40);
    }
    root_cgroups.clear();
    ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    root_zygote =
        adopt_ref(new HostProcess(pid, std::move(pidfd), std::move(area.fd), area.address, true));
    register_process(root_zygote);
    // The first child shows that the stub runs, and where the vDSO is.
    const auto first = TRY(root_zygote->fork_zygote());
    vdso = find_vdso(first->pid());
    return {};
}

Result<RefPtr<HostProcess>> HostProcess::fork_zygote() {
    const std::lock_guard<std::mutex> orders(spawner_mu_);
    volatile AreaHeader& h = header();
    h.result = 0;
    h.child_fd = -1;
    h.kind = MOAT_KIND_FORK;
    const uint32_t order = ++sequence_;
    post_order(h, order);
    TRY(wait_for_word(&h.done, order, *this));
    TRY(wait_for_nonzero(&h.result, *this));
    // No guest code has run in a zygote: what it writes is true.
    const int64_t pid = h.result;
    if (pid < 0) {
        return Errno(static_cast<int>(-pid));
    }
    ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
    if (!pidfd) {
        return Errno(errno);
    }
    ScopedFd area_fd(
        static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), static_cast<int>(h.child_fd), 0)));
    if (!area_fd) {
        return Errno(errno);
    }
    Area area = TRY(map_area(std::move(area_fd)));
    auto process = adopt_ref(new HostProcess(static_cast<pid_t>(pid), std::move(pidfd),
                                             std::move(area.fd), area.address, true));
    register_process(process);
    return process;
}

Result<RefPtr<HostProcess>> HostProcess::make_clean() {
    auto process = TRY(fork_zygote());
    auto thread = process->order_thread();
    if (!thread.ok()) {
        process->kill();
        return thread.error();
    }
    process->park(std::move(thread).value());
    return process;
}

Result<RefPtr<HostProcess>> HostProcess::create_zygote() {
    auto zygote = TRY(root_zygote->fork_zygote());
    volatile AreaHeader& h = zygote->header();
    h.kind = MOAT_KIND_ZYGOTE;
    zygote->pool_ = std::make_unique<Pool>();
    const uint32_t order = ++zygote->sequence_;
    post_order(h, order);
    // Heard before another is given: one that is slow to look would find only the later order, take
    // it for a spawner's and make a thread instead of a process.
    TRY(wait_for_word(&h.done, order, *zygote));
    const std::lock_guard<std::mutex> lock(Pool::pool_mu);
    if (!Pool::running) {
        Pool::running = true;
        std::thread(Pool::refill_loop).detach();
    }
    return zygote;
}

Result<RefPtr<HostProcess>> HostProcess::spawn_from_zygote() {
    {
        const std::lock_guard<std::mutex> lock(Pool::pool_mu);
        RefPtr<HostProcess> process;
        if (!pool_->ready.empty()) {
            process = std::move(pool_->ready.front());
            pool_->ready.pop_front();
        }
        if (!pool_->wanted) {
            pool_->wanted = true;
            Pool::to_refill.push_back(RefPtr<HostProcess>(this));
            Pool::pool_cv.notify_one();
        }
        if (process && !process->dead()) {
            return process;
        }
    }
    return make_clean();
}

void HostProcess::drain_pool() {
    std::deque<RefPtr<HostProcess>> drained;
    const std::lock_guard<std::mutex> lock(Pool::pool_mu);
    drained.swap(pool_->ready);
}

}  // namespace moat::platform
