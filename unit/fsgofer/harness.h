#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "fsgofer/protocol/messages.h"
#include "fsgofer/server/server.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/gofer/client.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

namespace moat::gofer::test {

/// A directory that is removed with all that is in it.
class TempDir {
  public:
    TempDir();
    ~TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    void file(const std::string& name, const std::string& contents = "") const;
    void directory(const std::string& name) const;
    void link(const std::string& name, const std::string& target) const;
    std::string read(const std::string& name) const;

  private:
    std::string path_;
};

struct SocketPair {
    ScopedFd ours;
    ScopedFd theirs;
};
SocketPair make_channel();

/// A server in a child process, over `directory` as mount 0 (and more), and a client of it. At the
/// end the channels are closed and the child must exit with 0 by itself.
class Gofer {
  public:
    struct Options {
        uint32_t flags = 0;             ///< of mount 0
        size_t descriptors = 64;        ///< for NodeTable
        std::vector<ServedMount> more;  ///< mounts 1, 2, ...
        rlim_t descriptor_limit = 0;    ///< RLIMIT_NOFILE of the child; 0: as ours
    };
    explicit Gofer(const TempDir& directory) : Gofer(directory, Options()) {}
    Gofer(const TempDir& directory, const Options& options);
    ~Gofer();

    Client* operator->() { return client_.get(); }
    Client& client() { return *client_; }
    NodeId root(size_t mount = 0) const { return client_->mounts()[mount].root.id; }
    pid_t pid() const { return pid_; }
    /// How many descriptors the server has open.
    size_t open_descriptors() const;
    /// Closes the channels and waits; the exit status as of waitpid(2).
    int finish();

    /// The one node at the end of a path that must exist.
    Node at(const std::string& path);

  private:
    std::unique_ptr<Client> client_;
    pid_t pid_ = -1;
};

/// Numbers of entries in /proc/PID/fd.
size_t count_descriptors(pid_t pid);
/// The value of a line of /proc/PID/status.
std::string status_line(pid_t pid, const std::string& key);
int wait_for(pid_t pid);

}  // namespace moat::gofer::test

/// An expression of type Result<> fails with this errno.
#define CHECK_ERRNO(expected, ...)                       \
    do {                                                 \
        const auto result_ = (__VA_ARGS__);              \
        CHECK_MESSAGE(!result_.ok(), #__VA_ARGS__);      \
        if (!result_.ok()) {                             \
            CHECK_EQ(result_.error().value(), expected); \
        }                                                \
    } while (0)
/// The value of a Result<> that must be there.
#define MUST(...)                                                                           \
    ({                                                                                      \
        auto result_ = (__VA_ARGS__);                                                       \
        REQUIRE_MESSAGE(result_.ok(), #__VA_ARGS__                                          \
                                          << ": errno "                                     \
                                          << (result_.ok() ? 0 : result_.error().value())); \
        std::move(result_).value();                                                         \
    })
