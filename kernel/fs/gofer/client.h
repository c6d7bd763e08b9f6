#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fsgofer/protocol/messages.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// A file that the gofer has handed out. Whoever receives one owns one hold on `id` and gives it
/// back by Client::close(), once for each time the id was received.
using Node = NodeEntry;

/// One of the container's mounts; 0 is its root. The hold on the root lasts as long as the client.
struct Mount {
    Node root;
    uint64_t fs_type = 0;  ///< statfs(2)'s f_type of the host's file system
    uint32_t flags = 0;    ///< MountFlags
    std::string destination;
};

/// How far a walk got.
struct WalkResult {
    WalkStop stop = WalkStop::kError;
    /// The components reached, in order, each with a hold.
    std::vector<Node> nodes;
    int error = 0;       ///< with kError: what the component after the last node gave
    std::string target;  ///< with kSymlink: of the last node
    /// An open was asked for and the walk is complete: the descriptor, or why there is none
    /// (EAGAIN: not a regular file).
    ScopedFd file;
    int open_error = 0;
};

struct DirEntry {
    std::string name;
    uint64_t ino = 0;
    uint64_t cookie = 0;  ///< to go on after this entry; opaque, and not ordered
    uint8_t type = 0;     ///< DT_REG, ...
    bool has_attributes = false;
    Attributes attributes;
};

struct DirChunk {
    std::vector<DirEntry> entries;
    bool end = false;  ///< there are no more
};

struct OpenedNode {
    Attributes attributes;
    ScopedFd file;
};

struct CreatedNode {
    Node node;
    ScopedFd file;
};

/// Owner and mode of something new, as they shall be: the umask and the parent's set-group-id bit
/// have been applied by the caller.
struct NewOwner {
    uint32_t mode = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
};

/// The sentry's side of one gofer connection: one member function an operation of
/// fsgofer/protocol/messages.h, whose rules on names and nodes hold here too. It knows nothing of
/// the VFS.
///
/// Any number of threads may call at once: each takes a free channel, and more are opened, up to
/// kMaxChannels, when all are busy. A call blocks for the answer, and must not be made with any
/// lock of the sentry held (asserted in debug builds). A gofer that has died, or answers what
/// cannot be true, fails this and every later call with EIO.
class Client {
  public:
    /// Takes over the socket and waits for the gofer to be ready. On failure `message`, when given,
    /// tells why in words: the gofer's own, if it had any.
    static Result<std::unique_ptr<Client>> connect(ScopedFd socket, std::string* message = nullptr);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    const std::vector<Mount>& mounts() const { return mounts_; }

    /// Resolves `path` ("a/b/c", not empty) below `base`; the whole of it in one request, unless it
    /// has more than some 450 components. `open_flags` other than kNoOpen also opens the last
    /// component if it is a regular file. An error of this call is one of the connection or of the
    /// base itself; errors of components are in the result.
    Result<WalkResult> walk(NodeId base, std::string_view path, uint32_t open_flags = kNoOpen);

    Result<Attributes> stat(NodeId node);
    Result<Attributes> set_attributes(const SetAttributesRequest& request);
    /// `flags` as for a walk. EISDIR; ENXIO for fifos, devices and sockets unless the mount allows
    /// them.
    Result<OpenedNode> open(NodeId node, uint32_t flags);
    Result<std::string> read_link(NodeId node);
    Result<StatfsReply> statfs(NodeId node);
    Status fsync(NodeId node, bool data_only);
    /// One chunk of a directory after `cookie` (0: from the start).
    Result<DirChunk> read_dir(NodeId node, uint64_t cookie, bool want_attributes);

    /// Each fails with EEXIST if the name is there.
    Result<CreatedNode> create(NodeId parent, std::string_view name, uint32_t flags,
                               NewOwner owner);
    Result<Node> mkdir(NodeId parent, std::string_view name, NewOwner owner);
    /// `owner.mode` with the type. EPERM for devices: the gofer has no CAP_MKNOD.
    Result<Node> mknod(NodeId parent, std::string_view name, NewOwner owner, uint32_t rdev_major,
                       uint32_t rdev_minor);
    Result<Node> symlink(NodeId parent, std::string_view name, std::string_view target,
                         NewOwner owner);
    Result<Node> link(NodeId node, NodeId new_parent, std::string_view new_name);
    Status unlink(NodeId parent, std::string_view name);
    Status rmdir(NodeId parent, std::string_view name);
    /// `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE.
    Status rename(NodeId old_parent, std::string_view old_name, NodeId new_parent,
                  std::string_view new_name, uint32_t flags = 0);

    Result<std::string> get_xattr(NodeId node, std::string_view name);
    Status set_xattr(NodeId node, std::string_view name, std::string_view value, uint32_t flags);
    /// Names, each followed by its NUL.
    Result<std::string> list_xattr(NodeId node);
    Status remove_xattr(NodeId node, std::string_view name);

    /// A socket connected to the host's unix socket `node`. EPERM unless the mount allows it.
    Result<ScopedFd> connect_socket(NodeId node, int type);

    /// Gives holds back. Does not wait for the gofer; best called with many at once.
    void close(const CloseItem* items, size_t count);
    void close(NodeId node) {
        const CloseItem item{node, 1};
        close(&item, 1);
    }

  private:
    struct Impl;
    explicit Client(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
    std::vector<Mount> mounts_;
};

}  // namespace moat::gofer
