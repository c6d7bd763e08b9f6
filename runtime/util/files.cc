#include "runtime/util/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace moat::runtime {

Result<std::string> read_whole_file(const std::string& path) {
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    std::string text;
    for (;;) {
        char buffer[16384];
        const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "read " + path);
        }
        if (n == 0) {
            return text;
        }
        text.append(buffer, n);
        if (text.size() > 16u << 20) {
            return Error::from_errno(EFBIG, "read " + path);
        }
    }
}

Status write_all(int fd, const std::string& content) {
    size_t at = 0;
    while (at < content.size()) {
        const ssize_t n = ::write(fd, content.data() + at, content.size() - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "write");
        }
        at += n;
    }
    return {};
}

Status replace_file(int directory_fd, const std::string& name, const std::string& content,
                    Durability durability, mode_t mode) {
    const std::string temporary = "." + name + ".new";
    ScopedFd fd(::openat(directory_fd, temporary.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!fd) {
        return Error::from_errno(errno, "create " + temporary);
    }
    TRY_STEP(name, write_all(fd.get(), content));
    if (durability == Durability::kMachine && ::fsync(fd.get()) != 0) {
        return Error::from_errno(errno, "fsync " + name);
    }
    if (::renameat(directory_fd, temporary.c_str(), directory_fd, name.c_str()) != 0) {
        return Error::from_errno(errno, "rename " + temporary + " to " + name);
    }
    if (durability == Durability::kMachine && ::fsync(directory_fd) != 0) {
        return Error::from_errno(errno, "fsync the directory of " + name);
    }
    return {};
}

Result<std::string> real_path(const std::string& path) {
    char buffer[PATH_MAX];
    if (::realpath(path.c_str(), buffer) == nullptr) {
        return Error::from_errno(errno, path);
    }
    return std::string(buffer);
}

Status make_directories(const std::string& path, mode_t mode) {
    size_t at = 0;
    do {
        at = path.find('/', at + 1);
        const std::string part = path.substr(0, at);
        if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
            return Error::from_errno(errno, "mkdir " + part);
        }
    } while (at != std::string::npos);
    return {};
}

Result<ScopedFd> memory_file(const char* name, const std::string& content) {
    ScopedFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) {
        return Error::from_errno(errno, std::string("memfd_create ") + name);
    }
    TRY_STEP(name, write_all(fd.get(), content));
    if (::lseek(fd.get(), 0, SEEK_SET) != 0 ||
        ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) !=
            0) {
        return Error::from_errno(errno, std::string("seal ") + name);
    }
    return fd;
}

}  // namespace moat::runtime
