#include <linux/capability.h>
#include <linux/utsname.h>
#include <string.h>
#include <sys/random.h>

#include <algorithm>

#include "kernel/base/version.h"
#include "kernel/fs/dev/kernel_log.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/task_view.h"
#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

void set_field(char (&field)[65], std::string_view text) {
    memset(field, 0, sizeof field);
    memcpy(field, text.data(), std::min(text.size(), sizeof field - 1));
}

Result<std::string> copy_in_name(Task& task, GuestAddr name, int32_t length) {
    if (!task.has_capability(CAP_SYS_ADMIN)) {
        return Errno(EPERM);
    }
    if (length < 0 || length > __NEW_UTS_LEN) {
        return Errno(EINVAL);
    }
    std::string text(static_cast<size_t>(length), '\0');
    TRY(task.copy_in_bytes(text.data(), name, text.size()));
    return text.substr(0, text.find('\0'));
}

}  // namespace

Status sys_uname(Task& task, UserPtr<utsname> buffer) {
    utsname names;
    set_field(names.sysname, kSysname);
    set_field(names.nodename, task.container().hostname());
    set_field(names.release, kRelease);
    set_field(names.version, kKernelVersion);
    set_field(names.machine, kMachine);
    set_field(names.domainname, task.container().domainname());
    return task.copy_out(buffer, names);
}

Status sys_sethostname(Task& task, GuestAddr name, int32_t length) {
    task.container().set_hostname(TRY(copy_in_name(task, name, length)));
    return {};
}

Status sys_setdomainname(Task& task, GuestAddr name, int32_t length) {
    task.container().set_domainname(TRY(copy_in_name(task, name, length)));
    return {};
}

Status sys_sysinfo(Task& task, UserPtr<struct sysinfo> info) {
    const MemoryView memory = memory_view(task.pid_namespace(), task.container());
    struct sysinfo s {};
    s.uptime = (uptime_ns() + 999'999'999) / 1'000'000'000;  // rounded up, as on Linux
    s.totalram = memory.total;
    s.freeram = memory.free;
    s.procs =
        static_cast<uint16_t>(std::min<size_t>(count_tasks(task.pid_namespace()), UINT16_MAX));
    s.mem_unit = 1;
    return task.copy_out(info, s);
}

Result<int64_t> sys_getrandom(Task& task, GuestAddr buffer, size_t size, uint32_t flags) {
    constexpr uint32_t kInsecure = 4;
    if ((flags & ~(GRND_NONBLOCK | GRND_RANDOM | kInsecure)) != 0 ||
        (flags & (GRND_RANDOM | kInsecure)) == (GRND_RANDOM | kInsecure)) {
        return Errno(EINVAL);
    }
    // A short count is allowed beyond 256 bytes (getrandom(2)); no worker is held long.
    size = std::min<size_t>(size, 1 << 20);
    size_t done = 0;
    while (done < size) {
        char bytes[4096];
        const ssize_t n = getrandom(bytes, std::min(sizeof bytes, size - done), 0);
        if (n <= 0) {
            return Errno(EIO);
        }
        const Status copied = task.copy_out_bytes(buffer + done, bytes, static_cast<size_t>(n));
        if (!copied.ok()) {
            return done > 0 ? Result<int64_t>(static_cast<int64_t>(done)) : copied.error();
        }
        done += static_cast<size_t>(n);
    }
    return static_cast<int64_t>(done);
}

// ---------------------------------------------------------------- syslog(2)

namespace {

enum SyslogAction : int32_t {
    kClose,
    kOpen,
    kRead,
    kReadAll,
    kReadClear,
    kClear,
    kConsoleOff,
    kConsoleOn,
    kConsoleLevel,
    kSizeUnread,
    kSizeBuffer,
};

std::atomic<uint64_t> cleared_before{0};  // relaxed: independent of what it counts
std::atomic<uint64_t> read_before{0};

/// The newest whole lines that fit.
std::string newest_lines(uint64_t from, size_t size) {
    std::vector<std::string> lines;
    size_t total = 0;
    for (uint64_t n = kernel_log_next(); n > from;) {
        const auto message = kernel_log_at(--n);
        if (!message || message->sequence != n) {
            break;
        }
        lines.push_back(message->as_syslog());
        total += lines.back().size();
        if (total > size) {
            lines.pop_back();
            break;
        }
    }
    std::string text;
    for (auto it = lines.rbegin(); it != lines.rend(); ++it) {
        text += *it;
    }
    return text;
}

}  // namespace

Result<int64_t> sys_syslog(Task& task, int32_t type, GuestAddr buffer, int32_t size) {
    // As with dmesg_restrict=0: reading all and asking the size are everybody's.
    if (type != kReadAll && type != kSizeBuffer && !task.has_capability(CAP_SYSLOG) &&
        !task.has_capability(CAP_SYS_ADMIN)) {
        return Errno(EPERM);
    }
    switch (type) {
        case kClose:
        case kOpen:
            return 0;
        case kReadAll:
        case kReadClear: {
            if (to_integer(buffer) == 0 || size < 0) {
                return Errno(EINVAL);
            }
            const uint64_t next = kernel_log_next();
            const std::string text = newest_lines(cleared_before.load(), static_cast<size_t>(size));
            TRY(task.copy_out_bytes(buffer, text.data(), text.size()));
            if (type == kReadClear) {
                cleared_before.store(next);
            }
            return static_cast<int64_t>(text.size());
        }
        case kRead: {
            if (to_integer(buffer) == 0 || size < 0) {
                return Errno(EINVAL);
            }
            if (size == 0) {
                return 0;
            }
            auto attempt = [&task, buffer, size]() -> Result<int64_t> {
                const auto message = kernel_log_at(read_before.load());
                if (!message) {
                    return Errno(EAGAIN);
                }
                const std::string text = message->as_syslog();
                const size_t n = std::min(text.size(), static_cast<size_t>(size));
                TRY(task.copy_out_bytes(buffer, text.data(), n));
                read_before.store(message->sequence + 1);
                return static_cast<int64_t>(n);
            };
            return attempt_or_block(task, {&kernel_log_events(), EPOLLIN}, true, Deadline::never(),
                                    kRestartSys, attempt);
        }
        case kClear:
            cleared_before.store(kernel_log_next());
            return 0;
        case kConsoleOff:
        case kConsoleOn:
            return 0;  // there is no console that messages go to
        case kConsoleLevel:
            return size < 1 || size > 8 ? Result<int64_t>(Errno(EINVAL)) : Result<int64_t>(0);
        case kSizeUnread: {
            int64_t unread = 0;
            // Not in the head of a `for`: gcc before 14 destroys what a condition declares before
            // it evaluates the last expression.
            uint64_t n = read_before.load();
            while (const auto message = kernel_log_at(n)) {
                unread += static_cast<int64_t>(message->as_syslog().size());
                n = message->sequence + 1;
            }
            return unread;
        }
        case kSizeBuffer:
            return static_cast<int64_t>(kKernelLogBytes);
        default:
            return Errno(EINVAL);
    }
}

Status sys_getcpu(Task&, UserPtr<uint32_t>, UserPtr<uint32_t>) {
    // Only the caller's own thread can say; the host kernel writes with the guest's own access.
    return kContinueOnHost;
}

Result<int64_t> sys_personality(Task& task, uint32_t persona) {
    constexpr uint32_t kNoRandomize = 0x0040000;
    const uint32_t old = task.personality();
    if (persona != UINT32_MAX) {
        if ((persona & ~kNoRandomize) != 0) {
            return unsupported("personality", EINVAL);
        }
        task.set_personality(persona);
    }
    return old;
}

}  // namespace moat::kernel
