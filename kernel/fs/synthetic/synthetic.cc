#include "kernel/fs/synthetic/synthetic.h"

#include <fcntl.h>

#include "kernel/time/clock.h"

namespace moat::kernel {

SyntheticFileSystem::SyntheticFileSystem(const char* type, uint32_t magic)
    : type_(type), magic_(magic), made_at_(realtime()) {}

Result<struct statfs> SyntheticFileSystem::statistics() {
    struct statfs s {};
    s.f_type = magic_;
    s.f_bsize = 4096;
    s.f_frsize = 4096;
    s.f_namelen = 255;
    return s;
}

SyntheticInode::SyntheticInode(SyntheticFileSystem& fs, uint32_t mode, uint64_t ino)
    : Inode(fs, mode), ino_(ino != 0 ? ino : fs.next_ino()), mode_(mode) {
    atime_ = mtime_ = ctime_ = fs.made_at();
}

Result<InodeAttributes> SyntheticInode::attributes() {
    InodeAttributes a;
    a.nlink = link_count();
    a.ino = ino_;
    a.rdev = rdev_;
    a.size = content_size();
    MutexLock lock(attributes_mu_);
    a.mode = mode_;
    a.uid = uid_;
    a.gid = gid_;
    a.atime = atime_;
    a.mtime = mtime_;
    a.ctime = a.btime = ctime_;
    return a;
}

Status SyntheticInode::set_attributes(const AttributeChange& change) {
    if (change.size) {
        return is_directory() ? Errno(EISDIR) : Errno(EINVAL);
    }
    if (!changeable_) {
        return Errno(EPERM);
    }
    MutexLock lock(attributes_mu_);
    if (change.mode) {
        mode_ = (mode_ & S_IFMT) | (*change.mode & 07777);
    }
    if (change.uid) {
        uid_ = *change.uid;
    }
    if (change.gid) {
        gid_ = *change.gid;
    }
    if (change.atime) {
        atime_ = *change.atime;
    }
    if (change.mtime) {
        mtime_ = *change.mtime;
    }
    ctime_ = realtime();
    return {};
}

void SyntheticInode::set_owner(uint32_t uid, uint32_t gid) {
    MutexLock lock(attributes_mu_);
    uid_ = uid;
    gid_ = gid;
}

LinkInode::LinkInode(SyntheticFileSystem& fs, std::string text, uint64_t ino)
    : LinkInode(
          fs, [text = std::move(text)](Task&) -> Result<std::string> { return text; }, nullptr,
          ino) {}

LinkInode::LinkInode(SyntheticFileSystem& fs, LinkText text, LinkTarget target, uint64_t ino)
    : SyntheticInode(fs, S_IFLNK | 0777, ino), text_(std::move(text)), target_(std::move(target)) {}

Result<Path> LinkInode::follow_magic_link(Task& task) { return target_ ? target_(task) : Path(); }

Result<RefPtr<File>> LinkInode::open(Task&, const Path&, uint32_t) { return Errno(ELOOP); }

}  // namespace moat::kernel
