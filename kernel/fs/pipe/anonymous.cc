#include "kernel/fs/pipe/anonymous.h"

#include <atomic>

#include "kernel/fs/inode.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

/// Gives nameless files a device number of their own; nobody can mount or look it up.
class AnonymousFileSystem final : public FileSystem {
  public:
    const char* type_name() const override { return "anon_inodefs"; }
    RefPtr<Inode> root() override { return nullptr; }
    Result<struct statfs> statistics() override {
        struct statfs s {};
        s.f_type = 0x09041934;  // ANON_INODE_FS_MAGIC
        s.f_bsize = 4096;
        s.f_namelen = 255;
        return s;
    }
};

uint64_t anonymous_device() {
    static AnonymousFileSystem* const fs = new AnonymousFileSystem;
    return fs->device();
}

}  // namespace

uint64_t next_anonymous_inode() {
    static std::atomic<uint64_t> last{1000};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

struct stat anonymous_stat(uint64_t ino, uint32_t mode, uint32_t uid, uint32_t gid) {
    struct stat s {};
    s.st_dev = anonymous_device();
    s.st_ino = ino;
    s.st_mode = mode;
    s.st_nlink = 1;
    s.st_uid = uid;
    s.st_gid = gid;
    s.st_blksize = 4096;
    s.st_atim = s.st_mtim = s.st_ctim = realtime();
    return s;
}

}  // namespace moat::kernel
