#include "e2e/syscalls/lib/fd.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

namespace guest {

void FileDescriptor::reset(int fd) {
    if (fd_ >= 0) {
        ::close(fd_);
    }
    fd_ = fd;
}

FileDescriptor open_file(const std::string& path, int flags, mode_t mode) {
    FileDescriptor fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
    if (!fd.valid()) {
        fatal("open " + path + ": " + errno_name(errno));
    }
    return fd;
}

Pipe::Pipe(int flags) {
    int fds[2];
    if (::pipe2(fds, flags) != 0) {
        fatal("pipe2: " + errno_name(errno));
    }
    read_end.reset(fds[0]);
    write_end.reset(fds[1]);
}

SocketPair::SocketPair(int type) {
    int fds[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0) {
        fatal("socketpair: " + errno_name(errno));
    }
    a.reset(fds[0]);
    b.reset(fds[1]);
}

std::string read_all(int fd) {
    std::string all;
    char buffer[4096];
    for (;;) {
        const ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return all;
        }
        all.append(buffer, static_cast<size_t>(n));
    }
}

std::string read_file(const std::string& path) {
    const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return fd.valid() ? read_all(fd.get()) : std::string();
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return false;
        }
        bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
}

std::string read_exactly(int fd, size_t n) {
    std::string all(n, '\0');
    size_t got = 0;
    while (got < n) {
        const ssize_t r = ::read(fd, all.data() + got, n - got);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r <= 0) {
            break;
        }
        got += static_cast<size_t>(r);
    }
    all.resize(got);
    return all;
}

TempDir::TempDir() {
    std::vector<std::string> candidates;
    if (const char* dir = ::getenv("TMPDIR")) {
        candidates.emplace_back(dir);
    }
    candidates.emplace_back("/tmp");
    char cwd[4096];
    if (::getcwd(cwd, sizeof cwd) != nullptr) {
        candidates.emplace_back(std::strcmp(cwd, "/") == 0 ? "" : cwd);
    }
    for (const std::string& candidate : candidates) {
        std::string pattern = candidate + "/guest.XXXXXX";
        if (::mkdtemp(pattern.data()) != nullptr) {
            path_ = pattern;
            // Cases that drop their privileges must still be able to come in.
            ::chmod(path_.c_str(), 0755);
            return;
        }
    }
    fatal("no directory for temporary files: " + errno_name(errno));
}

TempDir::~TempDir() { remove_tree(path_); }

std::string TempDir::operator/(std::string_view name) const {
    return path_ + "/" + std::string(name);
}

std::string TempDir::file(std::string_view name, std::string_view contents, mode_t mode) const {
    const std::string path = *this / name;
    const FileDescriptor fd = open_file(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    if (!write_all(fd.get(), contents) || ::fchmod(fd.get(), mode) != 0) {
        fatal("write " + path + ": " + errno_name(errno));
    }
    return path;
}

void remove_tree(const std::string& path) {
    struct stat st;
    if (::lstat(path.c_str(), &st) != 0) {
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        if (DIR* dir = ::opendir(path.c_str())) {
            std::vector<std::string> names;
            while (const dirent* entry = ::readdir(dir)) {
                const std::string name = entry->d_name;
                if (name != "." && name != "..") {
                    names.push_back(name);
                }
            }
            ::closedir(dir);
            for (const std::string& name : names) {
                remove_tree(path + "/" + name);
            }
        }
        ::rmdir(path.c_str());
    } else {
        ::unlink(path.c_str());
    }
}

}  // namespace guest
