#pragma once

// The protocol between a sentry and a gofer.
//
// A channel is a unix SOCK_SEQPACKET socket: one packet is one message, so a request costs each
// side one sendmsg and one recvmsg. A channel carries one request at a time; a client that wants
// several at once opens more channels (kOpenChannel), which share the nodes. We chose this over
// tags on one socket because a waiting thread is then woken by its own answer and never has to pass
// on another's.
//
// A message is a Header, the operation's fixed struct, then its variable part. All integers are
// little-endian; padding is zero. An answer with a non-zero Header::error has no body, except that
// a failed kHello carries a text for people. Descriptors only travel from the gofer to the sentry,
// at most one a message.
//
// Nodes. A NodeId names a file by mount and name, as a dentry does. It is handed out by kHello (the
// roots) and inside each NodeEntry. The same file name yields the same id for as long as anybody
// holds it; each NodeEntry received is one hold, given back by kClose. A node follows renames made
// through the gofer. If the name on the host has come to mean another file, operations on the node
// fail with ESTALE and the client walks again.
//
// Names are 1 to 255 bytes without '/' and NUL, and neither "." nor "..": anything else is EINVAL
// (ENAMETOOLONG when too long). A path is such names joined by single slashes, without one at
// either end. The gofer never follows a symlink.
//
// The sentry is not trusted by the gofer: what breaks the framing (a length that lies, an unknown
// operation) ends the channel, everything else is answered with an errno.

#include <cstddef>
#include <cstdint>

namespace moat::gofer {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are sent as they lie in memory");

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr uint32_t kHelloMagic = 0x7461'6f6d;  // "moat"
/// Longest message in bytes, header included.
inline constexpr size_t kMaxMessage = 64 << 10;
inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxPath = 4095;
/// Longest xattr value that fits a message (Linux allows 65536; real ones are far below).
inline constexpr size_t kMaxXattrValue = 60 << 10;
inline constexpr size_t kMaxChannels = 16;

enum class Op : uint16_t {
    kHello = 1,    // the first request of a client: versions, mounts and their roots
    kOpenChannel,  // another channel; its descriptor comes with the answer
    kWalk,         // resolve a whole path below a node
    kStat,         // attributes of a node
    kSetAttributes,
    kOpen,    // donates a descriptor of a regular file
    kCreate,  // makes and opens a regular file
    kMkdir,
    kMknod,
    kSymlink,
    kLink,
    kUnlink,  // unlink and rmdir
    kRename,
    kReadLink,
    kReadDir,
    kStatfs,
    kGetXattr,
    kSetXattr,
    kListXattr,
    kRemoveXattr,
    kFsync,
    kConnect,  // donates a socket connected to a host's unix socket
    kClose,    // gives holds back; has no answer
    kEnd,
};

struct Header {
    uint32_t length = 0;    // of the whole message
    Op op{};                // an answer repeats its request's
    uint16_t fds = 0;       // answers: 1 if a descriptor comes along
    uint32_t sequence = 0;  // chosen by the client, repeated by the answer
    int32_t error = 0;      // answers: 0 or a positive errno
};
static_assert(sizeof(Header) == 16);

/// Never 0 for a real node. The generation in the upper half catches ids used after they were
/// closed.
using NodeId = uint64_t;

struct Timestamp {
    int64_t seconds = 0;
    uint32_t nanoseconds = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(Timestamp) == 16);

/// What statx(2) tells.
struct Attributes {
    uint64_t ino = 0;
    uint64_t size = 0;
    uint64_t blocks = 0;  // of 512 bytes
    uint32_t mode = 0;    // type and permissions
    uint32_t nlink = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t dev_major = 0;
    uint32_t dev_minor = 0;
    uint32_t rdev_major = 0;
    uint32_t rdev_minor = 0;
    uint32_t block_size = 0;
    uint32_t has_birth_time = 0;
    Timestamp access_time;
    Timestamp modify_time;
    Timestamp change_time;
    Timestamp birth_time;
};
static_assert(sizeof(Attributes) == 128);

struct NodeEntry {
    NodeId id = 0;
    Attributes attributes;
};
static_assert(sizeof(NodeEntry) == 136);

// ---------------------------------------------------------------- kHello

struct HelloRequest {
    uint32_t magic = kHelloMagic;
    uint32_t version = kProtocolVersion;
    uint32_t first_mount = 0;  // where to go on when the mounts do not fit one answer
    uint32_t padding = 0;
};
static_assert(sizeof(HelloRequest) == 16);

/// Followed by `count` MountEntry, each with its destination's bytes, padded to 8.
struct HelloReply {
    uint32_t version = kProtocolVersion;
    uint32_t mounts = 0;  // in total
    uint32_t count = 0;   // in this answer
    uint32_t padding = 0;
};
static_assert(sizeof(HelloReply) == 16);

enum MountFlags : uint32_t {
    kMountReadOnly = 1u << 0,
    kMountNoExec = 1u << 1,
    kMountNoSuid = 1u << 2,
    kMountNoDev = 1u << 3,
    kMountConnect = 1u << 4,  // kConnect is allowed
    kMountDevices = 1u << 5,  // kOpen may donate character and block devices
    kMountFifos = 1u << 6,    // kOpen may donate fifos
};

struct MountEntry {
    NodeEntry root;
    uint64_t fs_type = 0;  // statfs(2)'s f_type
    uint32_t flags = 0;    // MountFlags
    uint32_t destination_length = 0;
};
static_assert(sizeof(MountEntry) == 152);

// ---------------------------------------------------------------- kWalk

/// `flags` of a walk and of an open: O_ACCMODE, O_TRUNC, O_APPEND, O_DIRECT, O_SYNC, O_DSYNC,
/// O_NOATIME, O_NONBLOCK; all others are EINVAL.
inline constexpr uint32_t kNoOpen = UINT32_MAX;

/// Followed by the path.
struct WalkRequest {
    NodeId base = 0;
    uint32_t open_flags = kNoOpen;  // else: open the last component too, if it is a regular file
    uint32_t path_length = 0;
};
static_assert(sizeof(WalkRequest) == 16);

enum class WalkStop : uint32_t {
    kComplete,      // every component was found
    kSymlink,       // the last entry is a symlink, its target follows (also at the path's end)
    kNotDirectory,  // the last entry is not a directory, but more components follow
    kError,         // `error` is what the component after the last entry gave (ENOENT, EACCES, ...)
    kMore,          // the answer is full: go on from the last entry
};

/// Followed by `count` NodeEntry, one for each component reached in order, then the target.
struct WalkReply {
    WalkStop stop{};
    uint32_t count = 0;
    int32_t error = 0;       // with kError
    int32_t open_error = 0;  // complete, an open was asked for, and this errno came of it; EAGAIN:
                             // not a regular file; 0: the descriptor comes along
    uint32_t target_length = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(WalkReply) == 24);

// ---------------------------------------------------------------- one node

/// kStat (answer: Attributes), kReadLink (answer: the target), kStatfs (answer: StatfsReply).
struct NodeRequest {
    NodeId node = 0;
};
static_assert(sizeof(NodeRequest) == 8);

enum SetMask : uint32_t {
    kSetMode = 1u << 0,
    kSetUid = 1u << 1,
    kSetGid = 1u << 2,
    kSetSize = 1u << 3,
    kSetAccessTime = 1u << 4,
    kSetModifyTime = 1u << 5,
    kSetAccessTimeNow = 1u << 6,  // instead of the value; not together with it
    kSetModifyTimeNow = 1u << 7,
    kSetAll = (1u << 8) - 1,
};

/// Applied in the order owner, mode, size, times; what was done before an error stays done.
/// Answer: Attributes, as they are afterwards.
struct SetAttributesRequest {
    NodeId node = 0;
    uint32_t mask = 0;
    uint32_t mode = 0;  // permission bits only (07777)
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint64_t size = 0;
    Timestamp access_time;
    Timestamp modify_time;
};
static_assert(sizeof(SetAttributesRequest) == 64);

/// Answer: Attributes and the descriptor. EISDIR, ENXIO (a kind of file that the mount does not
/// donate).
struct OpenRequest {
    NodeId node = 0;
    uint32_t flags = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(OpenRequest) == 16);

struct StatfsReply {
    uint64_t type = 0;
    uint64_t block_size = 0;
    uint64_t fragment_size = 0;
    uint64_t blocks = 0;
    uint64_t blocks_free = 0;
    uint64_t blocks_available = 0;
    uint64_t files = 0;
    uint64_t files_free = 0;
    uint64_t name_length = 0;
    uint64_t flags = 0;  // ST_RDONLY, ...
};
static_assert(sizeof(StatfsReply) == 80);

struct FsyncRequest {
    NodeId node = 0;
    uint32_t data_only = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(FsyncRequest) == 16);

/// Answer: the connected socket. EPERM unless the mount allows it.
struct ConnectRequest {
    NodeId node = 0;
    uint32_t type = 0;  // SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET
    uint32_t padding = 0;
};
static_assert(sizeof(ConnectRequest) == 16);

struct CloseItem {
    NodeId node = 0;
    uint64_t holds = 0;  // how many to give back, at least 1
};
static_assert(sizeof(CloseItem) == 16);

/// Followed by `count` CloseItem. No answer; items that name nothing are skipped.
struct CloseRequest {
    uint32_t count = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(CloseRequest) == 8);

// ---------------------------------------------------------------- names in a directory

/// kCreate, kMkdir, kMknod, kSymlink; followed by the name, then (kSymlink) by the target. Always
/// exclusive: EEXIST if the name is there. Answer: NodeEntry; kCreate: with the descriptor.
/// The owner and the mode are set as given: the umask and the set-group-id rules of the parent are
/// the client's business.
struct MakeRequest {
    NodeId parent = 0;
    uint32_t mode = 0;  // permission bits; kMknod: with the type
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t flags = 0;       // kCreate: as of an open
    uint32_t rdev_major = 0;  // kMknod
    uint32_t rdev_minor = 0;
    uint32_t name_length = 0;
    uint32_t target_length = 0;  // kSymlink
};
static_assert(sizeof(MakeRequest) == 40);

/// Followed by the new name. Answer: NodeEntry of the new name.
struct LinkRequest {
    NodeId node = 0;
    NodeId new_parent = 0;
    uint32_t name_length = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(LinkRequest) == 24);

/// Followed by the name. The node that had it stays usable as an unlinked file for a while, not for
/// certain: ESTALE.
struct UnlinkRequest {
    NodeId parent = 0;
    uint32_t directory = 0;  // 1: rmdir
    uint32_t name_length = 0;
};
static_assert(sizeof(UnlinkRequest) == 16);

/// Followed by the old, then the new name. Both parents lie on one mount, else EXDEV.
struct RenameRequest {
    NodeId old_parent = 0;
    NodeId new_parent = 0;
    uint32_t flags = 0;  // RENAME_NOREPLACE or RENAME_EXCHANGE
    uint32_t old_length = 0;
    uint32_t new_length = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(RenameRequest) == 32);

// ---------------------------------------------------------------- kReadDir

struct ReadDirRequest {
    NodeId node = 0;
    uint64_t cookie = 0;           // 0: from the start; else of the last entry seen
    uint32_t want_attributes = 0;  // 1: each entry with its attributes
    uint32_t max_bytes = 0;        // of the answer; 0: as much as fits
};
static_assert(sizeof(ReadDirRequest) == 24);

/// Followed by `count` DirEntryHead. "." and ".." are left out.
struct ReadDirReply {
    uint32_t count = 0;
    uint32_t end = 0;  // 1: there are no more
};
static_assert(sizeof(ReadDirReply) == 8);

/// Followed by Attributes if `has_attributes`, then by the name, padded to 8.
struct DirEntryHead {
    uint64_t ino = 0;
    uint64_t cookie = 0;  // to go on after this entry
    uint8_t type = 0;     // DT_REG, ...
    uint8_t has_attributes = 0;
    uint16_t name_length = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(DirEntryHead) == 24);

// ---------------------------------------------------------------- extended attributes

/// kGetXattr (answer: the value), kListXattr (no name; answer: names, each with its NUL),
/// kSetXattr, kRemoveXattr. Followed by the name, then (kSetXattr) by the value.
struct XattrRequest {
    NodeId node = 0;
    uint32_t flags = 0;  // kSetXattr: XATTR_CREATE or XATTR_REPLACE
    uint32_t name_length = 0;
    uint32_t value_length = 0;
    uint32_t padding = 0;
};
static_assert(sizeof(XattrRequest) == 24);

/// Variable parts that are followed by another struct are padded to this.
inline constexpr size_t kAlign = 8;
constexpr size_t padded(size_t length) { return (length + kAlign - 1) & ~(kAlign - 1); }

}  // namespace moat::gofer
