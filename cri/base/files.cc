#include "cri/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <atomic>

#include "kernel/base/check.h"
#include "runtime/util/files.h"

namespace moat::cri {

std::string random_id() {
    unsigned char bytes[32];
    CHECK(getrandom(bytes, sizeof(bytes), 0) == static_cast<ssize_t>(sizeof(bytes)));
    static constexpr char kHex[] = "0123456789abcdef";
    std::string id;
    for (const unsigned char byte : bytes) {
        id += kHex[byte >> 4];
        id += kHex[byte & 15];
    }
    return id;
}

int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

int64_t told_now_ns() {
    static std::atomic<int64_t> last = 0;
    int64_t before = last.load();
    int64_t now = 0;
    do {
        now = std::max(now_ns(), before);
    } while (!last.compare_exchange_weak(before, now));
    return now;
}

int64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Result<std::string> read_fd(int fd, size_t max_bytes, const std::string& name) {
    std::string data;
    char buffer[16384];
    for (;;) {
        const ssize_t n = read(fd, buffer, sizeof(buffer));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "read " + name);
        }
        if (n == 0) {
            return data;
        }
        data.append(buffer, static_cast<size_t>(n));
        if (data.size() > max_bytes) {
            return Error(EFBIG,
                         "read " + name + ": longer than " + std::to_string(max_bytes) + " bytes");
        }
    }
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    return read_fd(fd.get(), max_bytes, path);
}

Status write_all(int fd, std::string_view data, const std::string& name) {
    while (!data.empty()) {
        const ssize_t n = write(fd, data.data(), data.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "write " + name);
        }
        data.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

Status write_file(const std::string& path, std::string_view data, uint32_t mode) {
    const std::string temporary = path + ".new";
    const ScopedFd fd(
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
    if (!fd) {
        return Error::from_errno(errno, "create " + temporary);
    }
    TRY(write_all(fd.get(), data, temporary));
    if (fchmod(fd.get(), mode) != 0) {
        return Error::from_errno(errno, "chmod " + temporary);
    }
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        return Error::from_errno(errno, "rename to " + path);
    }
    return {};
}

Status make_directories(const std::string& path, uint32_t mode) {
    for (size_t at = 1; at != std::string::npos && at < path.size();) {
        at = path.find('/', at);
        const std::string part = path.substr(0, at);
        if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
            return Error::from_errno(errno, "mkdir " + part);
        }
        at = at == std::string::npos ? at : at + 1;
    }
    struct stat st {};
    if (stat(path.c_str(), &st) != 0) {
        return Error::from_errno(errno, "mkdir " + path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return Error::from_errno(ENOTDIR, "mkdir " + path);
    }
    return {};
}

Status remove_tree(const std::string& path) { return runtime::remove_tree(path); }

Status sync_directory(const std::string& path) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd || fsync(fd.get()) != 0) {
        return Error::from_errno(errno, "sync " + path);
    }
    return {};
}

Result<FileLock> FileLock::acquire(const std::string& path, Mode mode, Wait wait) {
    ScopedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd && errno == EISDIR) {
        fd.reset(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    if (!fd) {
        return Error::from_errno(errno, "open lock " + path);
    }
    const int operation =
        (mode == Mode::kShared ? LOCK_SH : LOCK_EX) | (wait == Wait::kNo ? LOCK_NB : 0);
    while (flock(fd.get(), operation) != 0) {
        if (errno != EINTR) {
            return Error::from_errno(errno, "lock " + path);
        }
    }
    return FileLock(std::move(fd));
}

Result<FileLock> FileLock::of_directory(const std::string& path) {
    ScopedFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat locked {
    }, named{};
    if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || fstat(fd.get(), &locked) != 0 ||
        lstat(path.c_str(), &named) != 0) {
        return Error::from_errno(errno, "lock " + path);
    }
    if (locked.st_dev != named.st_dev || locked.st_ino != named.st_ino) {
        return Error(ENOENT, "lock " + path + ": it was removed");
    }
    return FileLock(std::move(fd));
}

}  // namespace moat::cri
