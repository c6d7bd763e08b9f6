#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "fsgofer/protocol/messages.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// The files that the sentry holds: a tree of names with one node each.
///
/// A node is a name below its parent node plus the identity (device, inode number) of the file that
/// was found there. It does *not* own a descriptor for good: RLIMIT_NOFILE may be 20000, and a
/// guest's find sees more files than that. The table keeps O_PATH descriptors of the nodes used
/// last and opens others again, below the nearest ancestor that has one, when they are needed. If
/// another file answers to the name by then (somebody changed a shared mount on the host), the
/// identity differs and the node is stale. A node whose descriptor is still open outlives that and
/// even its unlinking.
///
/// A node lives while the sentry holds it or it has children. Single-threaded.
class NodeTable {
  public:
    using Index = uint32_t;
    static constexpr Index kNone = UINT32_MAX;
    /// More nodes than this are refused with ENFILE: about 150 MB of names.
    static constexpr size_t kMaxNodes = 1 << 20;
    /// No operation uses more descriptors of nodes at once.
    static constexpr size_t kMinDescriptors = 16;

    /// Keeps at most `descriptors` (at least kMinDescriptors) open besides the roots'.
    explicit NodeTable(size_t descriptors);

    /// A root, held for ever: entry `name` of `directory` (borrowed; outlives the table). Errors:
    /// those of opening it.
    Result<Index> add_root(uint32_t mount, int directory, std::string name);

    /// EBADF for an id that is not held.
    Result<Index> find(NodeId id) const;
    NodeId id_of(Index index) const;
    uint32_t mount_of(Index index) const { return nodes_[index].mount; }
    /// Its type and permissions when they were last seen; only the type stays true.
    uint32_t mode_of(Index index) const { return nodes_[index].mode; }

    /// The O_PATH descriptor of a node, borrowed until kMinDescriptors - 1 others have been asked
    /// for. ESTALE: the name means another file now, or none.
    Result<int> descriptor(Index index);
    /// Whether descriptor() costs no host call.
    bool has_descriptor(Index index) const { return nodes_[index].fd.valid(); }

    /// A node by its place: the directory that has its name. ESTALE for unlinked nodes.
    struct Place {
        int directory;     ///< borrowed, as from descriptor()
        const char* name;  ///< borrowed; gone with the next change to the table
    };
    Result<Place> place(Index index);

    /// The node for a name that was just seen with these attributes: the one that is known, or a
    /// new one. A known one with another identity becomes unlinked. ENFILE.
    Result<Index> see(Index parent, std::string_view name, const Attributes& attributes);
    /// kNone if nobody holds it.
    Index lookup(Index parent, std::string_view name) const;
    bool same_file(Index index, const Attributes& attributes) const;
    void keep_descriptor(Index index, ScopedFd fd);

    void hold(Index index) { nodes_[index].holds++; }
    /// Gives back holds; more than there are counts as all.
    void release(Index index, uint64_t holds);

    /// The name is gone from its directory.
    void unlinked(Index parent, std::string_view name);
    /// The name has moved; what was there before is unlinked.
    void renamed(Index old_parent, std::string_view old_name, Index new_parent,
                 std::string_view new_name);
    void exchanged(Index a_parent, std::string_view a_name, Index b_parent,
                   std::string_view b_name);

    size_t size() const { return live_; }
    size_t open_descriptors() const { return open_; }

  private:
    struct Node {
        std::string name;
        uint64_t ino = 0;
        uint64_t holds = 0;
        uint32_t dev_major = 0;
        uint32_t dev_minor = 0;
        uint32_t generation = 1;
        uint32_t mount = 0;
        uint32_t mode = 0;
        uint32_t children = 0;
        Index parent = kNone;
        Index chain = kNone;  // next in the same hash bucket; next free node
        Index newer = kNone;  // neighbours in the list of open descriptors
        Index older = kNone;
        ScopedFd fd;
        bool live = false;
        bool linked = false;  // reachable by its name, and so in the index
        bool root = false;
    };

    static uint64_t hash(Index parent, std::string_view name);
    Result<Index> allocate();
    void link_name(Index index);
    void unlink_name(Index index);
    void move_to(Index index, Index new_parent, std::string_view new_name);
    bool is_ancestor(Index ancestor, Index index) const;
    void destroy_unused(Index index);
    void grow_buckets();
    void list_push(Index index);
    void list_remove(Index index);
    Result<ScopedFd> open_again(Index index);

    std::deque<Node> nodes_;
    std::vector<Index> buckets_;  // size is a power of two
    Index free_ = kNone;
    Index newest_ = kNone;
    Index oldest_ = kNone;
    size_t live_ = 0;
    size_t open_ = 0;
    size_t max_open_;
    struct RootPlace {
        int directory;
    };
    std::vector<RootPlace> roots_;  // by mount
};

}  // namespace moat::gofer
