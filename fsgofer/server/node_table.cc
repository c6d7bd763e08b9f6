#include "fsgofer/server/node_table.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include <algorithm>

#include "fsgofer/server/host.h"
#include "kernel/base/check.h"

namespace moat::gofer {

namespace {

/// Deeper chains of nodes are refused: nobody's directories are, and every step costs time.
constexpr size_t kMaxDepth = 16384;

}  // namespace

NodeTable::NodeTable(size_t descriptors)
    : buckets_(256, kNone), max_open_(std::max(descriptors, kMinDescriptors)) {}

uint64_t NodeTable::hash(Index parent, std::string_view name) {
    return std::hash<std::string_view>()(name) ^ (parent * 0x9e37'79b9'7f4a'7c15ull);
}

Result<NodeTable::Index> NodeTable::add_root(uint32_t mount, int directory, std::string name) {
    CHECK(mount == roots_.size());
    auto fd = TRY(open_beneath(directory, name.c_str(), O_PATH | O_NOFOLLOW));
    const auto attributes = TRY(attributes_of(fd.get(), ""));
    const Index index = TRY(allocate());
    Node& node = nodes_[index];
    node.name = std::move(name);
    node.mount = mount;
    node.ino = attributes.ino;
    node.dev_major = attributes.dev_major;
    node.dev_minor = attributes.dev_minor;
    node.mode = attributes.mode;
    node.fd = std::move(fd);
    node.root = true;
    node.holds = 1;
    roots_.push_back({directory});
    return index;
}

Result<NodeTable::Index> NodeTable::find(NodeId id) const {
    const auto index = static_cast<Index>(id);
    if (index >= nodes_.size()) {
        return Errno(EBADF);
    }
    const Node& node = nodes_[index];
    // A node that only lives for its children has been given back: its id is no longer good.
    if (!node.live || node.holds == 0 || node.generation != static_cast<uint32_t>(id >> 32)) {
        return Errno(EBADF);
    }
    return index;
}

NodeId NodeTable::id_of(Index index) const {
    return static_cast<NodeId>(nodes_[index].generation) << 32 | index;
}

Result<NodeTable::Index> NodeTable::allocate() {
    if (live_ >= kMaxNodes) {
        return Errno(ENFILE);
    }
    Index index = free_;
    if (index != kNone) {
        free_ = nodes_[index].chain;
    } else {
        index = static_cast<Index>(nodes_.size());
        nodes_.emplace_back();
    }
    nodes_[index].chain = kNone;
    nodes_[index].live = true;
    live_++;
    return index;
}

// ---------------------------------------------------------------- names

NodeTable::Index NodeTable::lookup(Index parent, std::string_view name) const {
    Index index = buckets_[hash(parent, name) & (buckets_.size() - 1)];
    while (index != kNone && (nodes_[index].parent != parent || nodes_[index].name != name)) {
        index = nodes_[index].chain;
    }
    return index;
}

void NodeTable::grow_buckets() {
    std::vector<Index> old(buckets_.size() * 2, kNone);
    old.swap(buckets_);
    for (Index first : old) {
        for (Index index = first; index != kNone;) {
            Node& node = nodes_[index];
            const Index next = node.chain;
            Index& bucket = buckets_[hash(node.parent, node.name) & (buckets_.size() - 1)];
            node.chain = bucket;
            bucket = index;
            index = next;
        }
    }
}

void NodeTable::link_name(Index index) {
    if (live_ > buckets_.size()) {
        grow_buckets();
    }
    Node& node = nodes_[index];
    Index& bucket = buckets_[hash(node.parent, node.name) & (buckets_.size() - 1)];
    node.chain = bucket;
    node.linked = true;
    bucket = index;
}

void NodeTable::unlink_name(Index index) {
    Node& node = nodes_[index];
    if (!node.linked) {
        return;
    }
    Index* at = &buckets_[hash(node.parent, node.name) & (buckets_.size() - 1)];
    while (*at != index) {
        at = &nodes_[*at].chain;
    }
    *at = node.chain;
    node.chain = kNone;
    node.linked = false;
}

bool NodeTable::same_file(Index index, const Attributes& a) const {
    const Node& node = nodes_[index];
    // The type too: a file system may give a freed inode number to the next file at once.
    return node.ino == a.ino && node.dev_major == a.dev_major && node.dev_minor == a.dev_minor &&
           (node.mode & S_IFMT) == (a.mode & S_IFMT);
}

Result<NodeTable::Index> NodeTable::see(Index parent, std::string_view name, const Attributes& a) {
    const Index known = lookup(parent, name);
    if (known != kNone) {
        if (same_file(known, a)) {
            nodes_[known].mode = a.mode;
            return known;
        }
        unlink_name(known);
    }
    const Index index = TRY(allocate());
    Node& node = nodes_[index];
    node.name = name;
    node.parent = parent;
    node.mount = nodes_[parent].mount;
    node.ino = a.ino;
    node.dev_major = a.dev_major;
    node.dev_minor = a.dev_minor;
    node.mode = a.mode;
    nodes_[parent].children++;
    link_name(index);
    return index;
}

void NodeTable::release(Index index, uint64_t holds) {
    Node& node = nodes_[index];
    if (node.root) {
        return;
    }
    node.holds -= std::min(holds, node.holds);
    destroy_unused(index);
}

void NodeTable::destroy_unused(Index index) {
    while (index != kNone) {
        Node& node = nodes_[index];
        if (node.holds != 0 || node.children != 0) {
            return;
        }
        unlink_name(index);
        if (node.fd.valid()) {
            list_remove(index);
        }
        const Index parent = node.parent;
        const uint32_t generation = node.generation + 1;
        node = Node();
        node.generation = generation == 0 ? 1 : generation;
        node.chain = free_;
        free_ = index;
        live_--;
        if (parent != kNone) {
            nodes_[parent].children--;
        }
        index = parent;
    }
}

void NodeTable::unlinked(Index parent, std::string_view name) {
    const Index index = lookup(parent, name);
    if (index != kNone) {
        unlink_name(index);
    }
}

bool NodeTable::is_ancestor(Index ancestor, Index index) const {
    while (index != kNone && index != ancestor) {
        index = nodes_[index].parent;
    }
    return index != kNone;
}

void NodeTable::move_to(Index index, Index new_parent, std::string_view new_name) {
    // The host has allowed the rename, so its tree has no cycle; but ours may be older than changes
    // made behind our back, and must not get one either.
    if (is_ancestor(index, new_parent)) {
        return;
    }
    Node& node = nodes_[index];
    const Index old_parent = node.parent;
    node.name = new_name;
    node.parent = new_parent;
    nodes_[new_parent].children++;
    link_name(index);
    nodes_[old_parent].children--;
    destroy_unused(old_parent);
}

void NodeTable::renamed(Index old_parent, std::string_view old_name, Index new_parent,
                        std::string_view new_name) {
    const Index moved = lookup(old_parent, old_name);
    const Index target = lookup(new_parent, new_name);
    // rename(2): two names of one file, and so also a name and itself: nothing happens.
    if (moved == target && moved != kNone) {
        return;
    }
    if (target != kNone) {
        unlink_name(target);
    }
    if (moved != kNone) {
        unlink_name(moved);
        move_to(moved, new_parent, new_name);
    }
}

void NodeTable::exchanged(Index a_parent, std::string_view a_name, Index b_parent,
                          std::string_view b_name) {
    const Index a = lookup(a_parent, a_name);
    const Index b = lookup(b_parent, b_name);
    if (a == b) {
        return;
    }
    if (a != kNone) {
        unlink_name(a);
    }
    if (b != kNone) {
        unlink_name(b);
    }
    if (a != kNone) {
        move_to(a, b_parent, b_name);
    }
    if (b != kNone) {
        move_to(b, a_parent, a_name);
    }
}

// ---------------------------------------------------------------- descriptors

void NodeTable::list_push(Index index) {
    Node& node = nodes_[index];
    node.older = newest_;
    node.newer = kNone;
    if (newest_ != kNone) {
        nodes_[newest_].newer = index;
    }
    newest_ = index;
    if (oldest_ == kNone) {
        oldest_ = index;
    }
    open_++;
}

void NodeTable::list_remove(Index index) {
    Node& node = nodes_[index];
    (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
    (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
    node.newer = node.older = kNone;
    open_--;
}

void NodeTable::keep_descriptor(Index index, ScopedFd fd) {
    Node& node = nodes_[index];
    if (node.root) {
        return;
    }
    if (node.fd.valid()) {
        list_remove(index);
    }
    node.fd = std::move(fd);
    list_push(index);
    if (open_ > max_open_) {
        const Index victim = oldest_;
        list_remove(victim);
        nodes_[victim].fd.reset();
    }
}

Result<int> NodeTable::descriptor(Index index) {
    Node& node = nodes_[index];
    if (node.fd.valid()) {
        if (!node.root && newest_ != index) {
            list_remove(index);
            list_push(index);
        }
        return node.fd.get();
    }
    auto fd = TRY(open_again(index));
    if (!same_file(index, TRY(attributes_of(fd.get(), "")))) {
        return Errno(ESTALE);
    }
    const int borrowed = fd.get();
    keep_descriptor(index, std::move(fd));
    return borrowed;
}

Result<ScopedFd> NodeTable::open_again(Index index) {
    // Names from the node up to, and without, the nearest ancestor that is open. A root always is.
    std::vector<Index> steps;
    Index anchor = index;
    while (!nodes_[anchor].fd.valid()) {
        if (!nodes_[anchor].linked || steps.size() == kMaxDepth) {
            return Errno(ESTALE);
        }
        steps.push_back(anchor);
        anchor = nodes_[anchor].parent;
    }
    ScopedFd intermediate;
    int directory = nodes_[anchor].fd.get();
    while (true) {
        std::string path;
        while (!steps.empty() && path.size() + nodes_[steps.back()].name.size() + 2 < PATH_MAX) {
            if (!path.empty()) {
                path += '/';
            }
            path += nodes_[steps.back()].name;
            steps.pop_back();
        }
        auto opened = open_beneath(directory, path.c_str(), O_PATH | O_NOFOLLOW);
        if (!opened.ok()) {
            const int error = opened.error().value();
            const bool replaced = error == ENOENT || error == ENOTDIR || error == ELOOP;
            return replaced ? Errno(ESTALE) : opened.error();
        }
        intermediate = std::move(opened).value();
        if (steps.empty()) {
            return intermediate;
        }
        directory = intermediate.get();
    }
}

Result<NodeTable::Place> NodeTable::place(Index index) {
    const Node& node = nodes_[index];
    if (node.root) {
        return Place{roots_[node.mount].directory, node.name.c_str()};
    }
    if (!node.linked) {
        return Errno(ESTALE);
    }
    return Place{TRY(descriptor(node.parent)), node.name.c_str()};
}

}  // namespace moat::gofer
