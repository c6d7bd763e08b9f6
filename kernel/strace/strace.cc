#include "kernel/strace/strace.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace internal {
std::atomic<bool> strace_on{false};
}

void set_strace(bool on) { internal::strace_on.store(on, std::memory_order_relaxed); }

namespace {

using ull = unsigned long long;

constexpr size_t kLongestText = 64;  // of a string or buffer shown

struct Flag {
    uint64_t value;
    const char* name;
};

void append_flags(std::string& s, uint64_t value, const Flag* flags, size_t count) {
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        if (flags[i].value != 0 && (value & flags[i].value) == flags[i].value) {
            append_text(s, "%s%s", first ? "" : "|", flags[i].name);
            value &= ~flags[i].value;
            first = false;
        }
    }
    if (value != 0 || first) {
        append_text(s, first ? "%#llx" : "|%#llx", static_cast<ull>(value));
    }
}

constexpr Flag kOpenFlags[] = {
    {O_TMPFILE, "O_TMPFILE"}, {O_DIRECTORY, "O_DIRECTORY"}, {O_CREAT, "O_CREAT"},
    {O_EXCL, "O_EXCL"},       {O_NOCTTY, "O_NOCTTY"},       {O_TRUNC, "O_TRUNC"},
    {O_APPEND, "O_APPEND"},   {O_NONBLOCK, "O_NONBLOCK"},   {O_SYNC, "O_SYNC"},
    {O_DSYNC, "O_DSYNC"},     {O_NOFOLLOW, "O_NOFOLLOW"},   {O_CLOEXEC, "O_CLOEXEC"},
    {O_PATH, "O_PATH"},       {O_DIRECT, "O_DIRECT"},       {O_NOATIME, "O_NOATIME"},
    {0100000, "O_LARGEFILE"},
};
constexpr Flag kProt[] = {
    {PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}};
constexpr Flag kMapFlags[] = {
    {MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE"},
    {MAP_SHARED, "MAP_SHARED"},
    {MAP_PRIVATE, "MAP_PRIVATE"},
    {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"},
    {MAP_FIXED, "MAP_FIXED"},
    {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
    {MAP_STACK, "MAP_STACK"},
    {MAP_NORESERVE, "MAP_NORESERVE"},
    {MAP_POPULATE, "MAP_POPULATE"},
    {MAP_GROWSDOWN, "MAP_GROWSDOWN"},
    {MAP_DENYWRITE, "MAP_DENYWRITE"},
};
constexpr Flag kCloneFlags[] = {
    {CLONE_VM, "CLONE_VM"},
    {CLONE_FS, "CLONE_FS"},
    {CLONE_FILES, "CLONE_FILES"},
    {CLONE_SIGHAND, "CLONE_SIGHAND"},
    {CLONE_VFORK, "CLONE_VFORK"},
    {CLONE_PARENT, "CLONE_PARENT"},
    {CLONE_THREAD, "CLONE_THREAD"},
    {CLONE_NEWNS, "CLONE_NEWNS"},
    {CLONE_SYSVSEM, "CLONE_SYSVSEM"},
    {CLONE_SETTLS, "CLONE_SETTLS"},
    {CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"},
    {CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"},
    {CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
};
constexpr Flag kAtFlags[] = {
    {AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"},
    {AT_REMOVEDIR, "AT_REMOVEDIR"},
    {AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"},
    {AT_EMPTY_PATH, "AT_EMPTY_PATH"},
};

void append_quoted(std::string& s, std::string_view text, bool cut) {
    s += '"';
    for (const char ch : text) {
        const auto c = static_cast<unsigned char>(ch);
        if (c == '\n') {
            s += "\\n";
        } else if (c == '\t') {
            s += "\\t";
        } else if (c == '"' || c == '\\') {
            s += '\\';
            s += ch;
        } else if (c < 32 || c >= 127) {
            append_text(s, "\\%o", c);
        } else {
            s += ch;
        }
    }
    s += cut ? "\"..." : "\"";
}

void append_string(std::string& s, Task& task, uint64_t address) {
    if (address == 0) {
        s += "NULL";
        return;
    }
    const auto text = task.copy_in_string(UserPtr<const char>(address), 4096, Errno(E2BIG));
    if (!text.ok()) {
        append_text(s, "%#llx", static_cast<ull>(address));
        return;
    }
    append_quoted(s, std::string_view(*text).substr(0, 256), text->size() > 256);
}

void append_argument(std::string& s, Task& task, std::string_view kind, uint64_t value,
                     uint64_t next) {
    const auto as_int = static_cast<int32_t>(value);
    if (kind == "int" || kind == "fd" || kind == "pid") {
        append_text(s, "%d", as_int);
    } else if (kind == "uint") {
        append_text(s, "%u", static_cast<uint32_t>(value));
    } else if (kind == "dirfd") {
        as_int == AT_FDCWD ? append_text(s, "AT_FDCWD") : append_text(s, "%d", as_int);
    } else if (kind == "size") {
        append_text(s, "%llu", static_cast<ull>(value));
    } else if (kind == "off") {
        append_text(s, "%lld", static_cast<long long>(value));
    } else if (kind == "mode") {
        append_text(s, "%#o", static_cast<uint32_t>(value));
    } else if (kind == "path" || kind == "string") {
        append_string(s, task, value);
    } else if (kind == "buf") {
        // The size is the argument that follows.
        char data[kLongestText];
        const size_t n = std::min<uint64_t>(next, sizeof data);
        if (value != 0 && task.copy_in_bytes(data, GuestAddr{value}, n).ok()) {
            append_quoted(s, {data, n}, next > n);
        } else {
            append_text(s, "%#llx", static_cast<ull>(value));
        }
    } else if (kind == "open_flags") {
        const uint64_t access = value & O_ACCMODE;
        s += access == O_RDONLY ? "O_RDONLY" : access == O_WRONLY ? "O_WRONLY" : "O_RDWR";
        if ((value & ~uint64_t{O_ACCMODE}) != 0) {
            s += '|';
            append_flags(s, value & ~uint64_t{O_ACCMODE}, kOpenFlags, std::size(kOpenFlags));
        }
    } else if (kind == "prot") {
        value == 0 ? append_text(s, "PROT_NONE") : append_flags(s, value, kProt, std::size(kProt));
    } else if (kind == "map_flags") {
        append_flags(s, value, kMapFlags, std::size(kMapFlags));
    } else if (kind == "clone_flags") {
        append_flags(s, value & ~0xffull, kCloneFlags, std::size(kCloneFlags));
        if (const char* signal = sigabbrev_np(static_cast<int>(value & 0xff))) {
            append_text(s, "|SIG%s", signal);
        }
    } else if (kind == "at_flags") {
        value == 0 ? append_text(s, "0") : append_flags(s, value, kAtFlags, std::size(kAtFlags));
    } else if (kind == "signal") {
        const char* name = sigabbrev_np(as_int);
        name != nullptr ? append_text(s, "SIG%s", name) : append_text(s, "%d", as_int);
    } else if (kind == "timespec") {
        const auto t = value != 0 ? task.copy_in(UserPtr<const timespec>(value)) : Errno(EFAULT);
        t.ok() ? append_text(s, "{%lld.%09ld}", static_cast<long long>(t->tv_sec), t->tv_nsec)
               : append_text(s, value == 0 ? "NULL" : "%#llx", static_cast<ull>(value));
    } else if (kind == "sigset") {
        const auto set = value != 0 ? task.copy_in(UserPtr<const uint64_t>(value)) : Errno(EFAULT);
        set.ok() ? append_text(s, "[%#llx]", static_cast<ull>(*set))
                 : append_text(s, value == 0 ? "NULL" : "%#llx", static_cast<ull>(value));
    } else if (kind == "words") {
        // argv, envp: the first few.
        s += '[';
        for (uint32_t i = 0; i < 8; i++) {
            const auto word = task.copy_in(UserPtr<const uint64_t>(value + i * 8));
            if (!word.ok() || *word == 0) {
                break;
            }
            s += i == 0 ? "" : ", ";
            append_string(s, task, *word);
        }
        s += ']';
    } else if (kind == "rlimit_resource") {
        static constexpr const char* kNames[] = {
            "CPU",     "FSIZE", "DATA",  "STACK",      "CORE",     "RSS",  "NPROC",  "NOFILE",
            "MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
        value < std::size(kNames) ? append_text(s, "RLIMIT_%s", kNames[value])
                                  : append_text(s, "%llu", static_cast<ull>(value));
    } else if (value == 0 && kind == "ptr") {
        s += "NULL";
    } else {
        append_text(s, "%#llx", static_cast<ull>(value));
    }
}

const char* internal_name(int code) {
    switch (code) {
        case 512:
            return "ERESTARTSYS";
        case 513:
            return "ERESTARTNOINTR";
        case 514:
            return "ERESTARTNOHAND";
        case 516:
            return "ERESTART_RESTARTBLOCK";
        default:
            return "?";
    }
}

/// Calls that are printed when they begin: they do not return, or not with the memory they were
/// made in.
bool prints_on_entry(uint64_t number) {
    return number == SYS_execve || number == SYS_execveat || number == SYS_exit ||
           number == SYS_exit_group || number == SYS_rt_sigreturn;
}

}  // namespace

std::string describe_call(Task& task, const SyscallEntry* entry) {
    const SyscallArguments& arguments = task.arguments();
    std::string s;
    if (entry == nullptr) {
        append_text(s, "syscall_%llu(", static_cast<ull>(arguments.number));
    } else {
        append_text(s, "%s(", entry->name);
    }
    // No format: all registers, as of a call that nobody has described.
    std::string_view format = entry != nullptr && entry->handler != nullptr
                                  ? std::string_view(entry->format)
                                  : "hex, hex, hex, hex, hex, hex";
    for (size_t i = 0; i < 6 && !format.empty(); i++) {
        const size_t comma = std::min(format.find(','), format.size());
        std::string_view kind = format.substr(0, comma);
        format.remove_prefix(std::min(comma + 1, format.size()));
        while (!kind.empty() && kind.front() == ' ') {
            kind.remove_prefix(1);
        }
        s += i == 0 ? "" : ", ";
        append_argument(s, task, kind, arguments.value[i], i < 5 ? arguments.value[i + 1] : 0);
    }
    s += ')';
    return s;
}

std::string describe_result(const Result<int64_t>& result) {
    if (result.ok()) {
        const int64_t value = result.value();
        // Addresses are told as such.
        return value > 0xffff'ffff ? format_text("= %#llx", static_cast<ull>(value))
                                   : format_text("= %lld", static_cast<long long>(value));
    }
    const int code = result.error().value();
    if (result.error() == kContinueOnHost) {
        return "= (by the host)";
    }
    if (code >= 512) {
        return format_text("= ? %s", internal_name(code));
    }
    const char* const name = strerrorname_np(code);
    return format_text("= -1 %s (%s)", name != nullptr ? name : "?", strerrordesc_np(code));
}

void strace_enter(Task& task, const SyscallEntry* entry) {
    if (prints_on_entry(task.arguments().number)) {
        LOG(kInfo, "strace", "[%d] %s ...", task.tid(), describe_call(task, entry).c_str());
    }
}

void strace_exit(Task& task, const Result<int64_t>& result) {
    const uint64_t number = task.arguments().number;
    const SyscallEntry* const entry = find_syscall(number);
    if (prints_on_entry(number)) {
        LOG(kInfo, "strace", "[%d] ... %s %s", task.tid(), entry != nullptr ? entry->name : "?",
            describe_result(result).c_str());
        return;
    }
    LOG(kInfo, "strace", "[%d] %s %s", task.tid(), describe_call(task, entry).c_str(),
        describe_result(result).c_str());
}

}  // namespace moat::kernel
