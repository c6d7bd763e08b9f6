#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "fsgofer/server/host.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

namespace {

/// What getdents64(2) writes.
struct RawEntry {
    uint64_t ino;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
} __attribute__((packed));

/// The longest entry of ours, and the longest of the host's.
constexpr size_t kLongestEntry = sizeof(DirEntryHead) + sizeof(Attributes) + 256;
constexpr size_t kSmallestAnswer = 4096;

}  // namespace

Status Server::read_dir(Reader& in, Writer& out) {
    const auto request = in.take<ReadDirRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    if (!S_ISDIR(nodes_.mode_of(node))) {
        return Errno(ENOTDIR);
    }

    // Reading on where the last request ended must cost no open: a few directories stay open until
    // their end was reached. Any other place is found by seeking, the cookies are the host's
    // offsets.
    OpenDirectory* directory = &directories_[0];
    for (OpenDirectory& d : directories_) {
        if (d.node == request.node) {
            directory = &d;
            break;
        }
        if (d.used < directory->used) {
            directory = &d;
        }
    }
    if (directory->node != request.node) {
        directory->node = 0;
        const int path = TRY(nodes_.descriptor(node));
        directory->fd = TRY(open_beneath(path, ".", O_RDONLY | O_DIRECTORY));
        directory->node = request.node;
        directory->cookie = 0;
    }
    directory->used = ++clock_;
    const int fd = directory->fd.get();
    if (directory->cookie != request.cookie) {
        TRY(host_result(::lseek(fd, static_cast<off_t>(request.cookie), SEEK_SET)));
    }
    directory->cookie = UINT64_MAX;  // unknown, should an error come between

    const bool want_attributes = request.want_attributes != 0;
    const size_t limit = request.max_bytes == 0 ? kMaxMessage
                                                : std::clamp(static_cast<size_t>(request.max_bytes),
                                                             kSmallestAnswer, kMaxMessage);
    ReadDirReply reply;
    const size_t at = out.reserve<ReadDirReply>();
    uint64_t cookie = request.cookie;
    alignas(RawEntry) char raw[16 << 10];
    while (true) {
        // So much is asked for that everything will fit. The host's entries take 24 bytes at least
        // and ours at most 8 (with attributes 136) more than the host's.
        const size_t room = limit - std::min(limit, out.size());
        const size_t ask = std::min(sizeof raw, want_attributes ? room / 7 : room / 4 * 3);
        if (ask < 280) {
            break;
        }
        const auto got = TRY(host_result(::syscall(SYS_getdents64, fd, raw, ask)));
        if (got == 0) {
            reply.end = 1;
            break;
        }
        for (long offset = 0; offset < got;) {
            const auto* entry = reinterpret_cast<const RawEntry*>(raw + offset);
            offset += entry->length;
            cookie = static_cast<uint64_t>(entry->offset);
            const std::string_view name(entry->name);
            if (check_name(name) != 0) {
                continue;  // "." and "..", and what a broken file system may give
            }
            DirEntryHead head;
            head.ino = entry->ino;
            head.cookie = cookie;
            head.type = entry->type;
            head.name_length = static_cast<uint16_t>(name.size());
            Attributes attributes;
            if (want_attributes) {
                // What has just been removed goes without.
                const auto found = attributes_of(fd, entry->name);
                if (found.ok()) {
                    attributes = *found;
                    head.has_attributes = 1;
                    // A mount point's own, rather than that of the directory below it.
                    head.ino = attributes.ino;
                    head.type = IFTODT(attributes.mode);
                }
            }
            if (!out.put(head) || (head.has_attributes != 0 && !out.put(attributes)) ||
                !out.put_padded(name)) {
                return Errno(EIO);
            }
            reply.count++;
        }
    }
    directory->cookie = cookie;
    if (reply.end != 0) {
        *directory = OpenDirectory();
    }
    out.fill(at, reply);
    return {};
}

}  // namespace moat::gofer
