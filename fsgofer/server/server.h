#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fsgofer/protocol/messages.h"
#include "fsgofer/protocol/polling.h"
#include "fsgofer/protocol/wire.h"
#include "fsgofer/server/node_table.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// A tree to serve: entry `name` of `directory`. That way a mount of a single file can be opened
/// again like any other.
struct ServedMount {
    int directory = -1;  ///< borrowed; outlives the server
    std::string name;
    std::string destination;
    uint32_t flags = 0;  ///< MountFlags
};

/// Serves one sentry, in one thread: requests are short, and a single thread that is already awake
/// answers a burst from several channels sooner than a thread for each that has to be woken.
///
/// Nothing that comes in is trusted. A request names nodes and single names only; it can reach no
/// file outside the mounts, change none on a read-only one, and get no descriptor but those of
/// regular files (unless the mount allows more).
class Server {
  public:
    /// `max_descriptors`: how many O_PATH descriptors may stay open (see NodeTable).
    explicit Server(size_t max_descriptors);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Before serve(); the index is the number of calls before. Errors: those of opening the root.
    Status add_mount(const ServedMount& mount);
    /// Answers requests until all channels are closed. Errors: of epoll only.
    Status serve(ScopedFd channel);
    /// One request, for serve() and for tests of the decoder: what the answer is, or EPROTO if the
    /// channel has to end. A request without an answer gives an empty one.
    struct Answer {
        std::string_view packet;  ///< in the server's buffer, until the next request
        ScopedFd fd;
    };
    Result<Answer> handle(const char* request, size_t size);

    const NodeTable& nodes() const { return nodes_; }

  private:
    struct MountState {
        ServedMount mount;
        NodeTable::Index root = NodeTable::kNone;
        uint64_t fs_type = 0;
    };
    /// A directory that is being read.
    struct OpenDirectory {
        NodeId node = 0;
        ScopedFd fd;
        uint64_t cookie = 0;  // where the descriptor stands
        uint64_t used = 0;    // by age
    };

    using Index = NodeTable::Index;

    Status dispatch(Op op, Reader& in, Writer& out, ScopedFd& donated);
    // walk.cc
    Status hello(Reader& in, Writer& out);
    Status walk(Reader& in, Writer& out, ScopedFd& donated);
    Status stat(Reader& in, Writer& out);
    Status read_link(Reader& in, Writer& out);
    // files.cc
    Status open(Reader& in, Writer& out, ScopedFd& donated);
    Status create(Reader& in, Writer& out, ScopedFd& donated);
    Status set_attributes(Reader& in, Writer& out);
    Status statfs(Reader& in, Writer& out);
    Status fsync(Reader& in);
    Status connect(Reader& in, ScopedFd& donated);
    // names.cc
    Status mkdir(Reader& in, Writer& out);
    Status mknod(Reader& in, Writer& out);
    Status symlink(Reader& in, Writer& out);
    Status link(Reader& in, Writer& out);
    Status unlink(Reader& in);
    Status rename(Reader& in);
    // read_dir.cc
    Status read_dir(Reader& in, Writer& out);
    // xattrs.cc
    Status get_xattr(Reader& in, Writer& out);
    Status list_xattr(Reader& in, Writer& out);
    Status set_xattr(Reader& in);
    Status remove_xattr(Reader& in);
    // server.cc
    /// Takes one message from a channel and answers it, or drops the channel. False: none was
    /// there.
    bool serve_one(int channel, int flags);
    Status open_channel(ScopedFd& donated);
    Status close_nodes(Reader& in);

    const MountState& mount_of(Index node) const { return mounts_[nodes_.mount_of(node)]; }
    /// EROFS on a read-only mount.
    Status check_writable(Index node) const;
    /// The directory to make, remove or rename a name in, and checks of the name: EROFS after
    /// ENOTDIR and the name's own errors.
    struct Target {
        Index parent;
        int directory;
        std::string name;
    };
    Result<Target> target(NodeId parent, std::string_view name);
    /// Opens a node's file for use, not as O_PATH, and makes sure that it is the node's: ESTALE.
    Result<ScopedFd> open_node(Index node, uint64_t flags, Attributes* attributes = nullptr);
    /// Opens what `flags` of the protocol ask for. EISDIR, ELOOP, ENXIO, EROFS.
    Result<ScopedFd> donate(Index node, uint32_t flags, Attributes* attributes);
    /// Gives something just made its owner and mode, and a node: with one hold, into `out`.
    Status finish_new(const Target& made, ScopedFd opened, const MakeRequest& request, Writer& out);
    Status put_node(Writer& out, Index node, const Attributes& attributes);
    /// The current directory becomes that of the node's name; for calls that only take paths.
    Result<const char*> enter_place(Index node);

    NodeTable nodes_;
    std::vector<MountState> mounts_;
    ScopedFd epoll_;
    std::vector<ScopedFd> channels_;
    size_t watched_ = 0;  // the first so many of them are in the epoll set
    Polling polling_;
    OpenDirectory directories_[8];
    uint64_t clock_ = 0;
    std::unique_ptr<char[]> request_;
    std::unique_ptr<char[]> answer_;
};

}  // namespace moat::gofer
