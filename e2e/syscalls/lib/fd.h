#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>

namespace guest {

/// Owns one descriptor; closes it on destruction. get() is explicit: no conversion to int.
class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        if (this != &other) {
            reset(other.release());
        }
        return *this;
    }
    ~FileDescriptor() { reset(); }

    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    void reset(int fd = -1);

  private:
    int fd_ = -1;
};

/// Opens or fails the test case (or the child) with the errno's name.
FileDescriptor open_file(const std::string& path, int flags, mode_t mode = 0644);

/// Both ends of a pipe2(flags).
struct Pipe {
    explicit Pipe(int flags = O_CLOEXEC);
    FileDescriptor read_end;
    FileDescriptor write_end;
};

/// Both ends of a socketpair(AF_UNIX, type).
struct SocketPair {
    explicit SocketPair(int type);
    FileDescriptor a;
    FileDescriptor b;
};

/// Reads until end of file or an error; what was read so far.
std::string read_all(int fd);
/// The whole of a file; empty when it cannot be opened.
std::string read_file(const std::string& path);
/// True when every byte was written.
bool write_all(int fd, std::string_view bytes);
/// Reads exactly n bytes unless the end comes first.
std::string read_exactly(int fd, size_t n);

/// A fresh directory, removed with all its contents on destruction. In $TMPDIR, /tmp or the current
/// directory, whichever can be written first.
class TempDir {
  public:
    TempDir();
    ~TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::string& path() const { return path_; }
    /// The path of a name inside.
    std::string operator/(std::string_view name) const;
    /// Creates a file with these contents inside; its path.
    std::string file(std::string_view name, std::string_view contents = "",
                     mode_t mode = 0644) const;

  private:
    std::string path_;
};

/// Removes a tree without following symbolic links; errors are ignored.
void remove_tree(const std::string& path);

}  // namespace guest
