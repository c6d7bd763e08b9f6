#include "unit/kernel/fs/vfs/harness.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/xattr.h>

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;

namespace {

std::string pattern(size_t size) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; i++) {
        text[i] = static_cast<char>('a' + (i * 7 + i / 256) % 26);
    }
    return text;
}

std::string read_at_offset(World& w, File& file, size_t size, int64_t offset) {
    std::string text(size, '\0');
    const auto n = read_at(w.task(), file, text.data(), size, offset);
    REQUIRE(n.ok());
    text.resize(*n);
    return text;
}

}  // namespace

TEST_CASE("tmpfs: contents survive the move from the heap to a memfd") {
    World w;
    RefPtr<File> file = w.open("/f", O_CREAT | O_RDWR);
    const std::string text = pattern(100'000);
    size_t done = 0;
    while (done < text.size()) {
        done += test::write_some(w, *file, text.substr(done, 3'333));
    }
    CHECK(w.stat("/f").st_size == 100'000);
    CHECK(w.stat("/f").st_blocks == 25 * 8);
    CHECK(w.read_file("/f") == text);
    CHECK(file->truncate(w.task(), 10).ok());
    CHECK(file->truncate(w.task(), 20'000).ok());
    CHECK(w.read_file("/f") == text.substr(0, 10) + std::string(19'990, '\0'));
}

TEST_CASE("tmpfs: a hole reads as zeros and is found") {
    World w;
    RefPtr<File> file = w.open("/f", O_CREAT | O_RDWR);
    REQUIRE(file->seek(w.task(), 1 << 20, SEEK_SET).ok());
    test::write_some(w, *file, "end");
    CHECK(w.stat("/f").st_size == (1 << 20) + 3);
    CHECK(w.stat("/f").st_blocks == 8);
    CHECK(read_at_offset(w, *file, 4, 5000) == std::string(4, '\0'));
    CHECK(*file->seek(w.task(), 0, SEEK_DATA) == 1 << 20);
    CHECK(*file->seek(w.task(), 0, SEEK_HOLE) == 0);
    CHECK(file->seek(w.task(), 2 << 20, SEEK_DATA).error() == ENXIO);
    CHECK(file->allocate(w.task(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096).ok());
    CHECK(w.stat("/f").st_blocks == 0);
    CHECK(file->allocate(w.task(), FALLOC_FL_COLLAPSE_RANGE, 0, 4096).error() == EOPNOTSUPP);
    // A gap in a small file is zeros too.
    RefPtr<File> small = w.open("/small", O_CREAT | O_RDWR);
    REQUIRE(small->seek(w.task(), 100, SEEK_SET).ok());
    test::write_some(w, *small, "x");
    CHECK(w.read_file("/small") == std::string(100, '\0') + "x");
}

TEST_CASE("tmpfs: the size limit gives short writes, then ENOSPC, and room comes back") {
    TmpfsOptions options;
    options.size = 10 * kPageSize;
    RefPtr<TmpfsFileSystem> fs = TmpfsFileSystem::create(options);
    World w(fs);
    RefPtr<File> file = w.open("/f", O_CREAT | O_RDWR);
    CHECK(test::write_some(w, *file, pattern(12 * kPageSize)) == 10 * kPageSize);
    std::string more = "x";
    IoBuffer buffer = IoBuffer::sentry(more.data(), 1);
    CHECK(file->write(w.task(), buffer).error() == ENOSPC);
    CHECK(fs->statistics()->f_bfree == 0);
    // Overwriting takes no room.
    REQUIRE(file->seek(w.task(), 0, SEEK_SET).ok());
    CHECK(test::write_some(w, *file, pattern(kPageSize)) == kPageSize);
    CHECK(file->truncate(w.task(), 0).ok());
    CHECK(fs->statistics()->f_bfree == 10);
    w.write_file("/g", pattern(3 * kPageSize));
    CHECK(fs->statistics()->f_bfree == 7);
    CHECK(w.unlink("/g") == 0);
    DentryCache::forget_file_system(*fs);
    CHECK(fs->statistics()->f_bfree == 10);
    CHECK(TmpfsOptions::parse({"size=1x"}).error() == EINVAL);
    CHECK(TmpfsOptions::parse({"size=64m", "mode=755"})->size == 64 << 20);
    CHECK(TmpfsOptions::parse({"bogus"}).error() == EINVAL);
}

TEST_CASE("tmpfs: O_APPEND writes at the end whatever the position") {
    World w;
    w.write_file("/log", "one\n");
    RefPtr<File> a = w.open("/log", O_WRONLY | O_APPEND);
    RefPtr<File> b = w.open("/log", O_WRONLY | O_APPEND);
    test::write_some(w, *a, "two\n");
    test::write_some(w, *b, "three\n");
    REQUIRE(a->seek(w.task(), 0, SEEK_SET).ok());
    test::write_some(w, *a, "four\n");
    CHECK(w.read_file("/log") == "one\ntwo\nthree\nfour\n");
    CHECK(*a->seek(w.task(), 0, SEEK_CUR) == 19);
}

TEST_CASE("tmpfs: a mapping's descriptor shows what is written later") {
    World w;
    RefPtr<File> file = w.open("/f", O_CREAT | O_RDWR);
    test::write_some(w, *file, "before");
    const MapSource source = *file->map_source(w.task(), PROT_READ, true);
    char bytes[16] = {};
    CHECK(pread(source.host_fd, bytes, 6, 0) == 6);
    CHECK(std::string(bytes) == "before");
    REQUIRE(file->seek(w.task(), 0, SEEK_SET).ok());
    test::write_some(w, *file, "after!");
    CHECK(pread(source.host_fd, bytes, 6, 0) == 6);
    CHECK(std::string(bytes) == "after!");
    CHECK_FALSE(w.open("/f")->map_source(w.task(), PROT_READ, true)->may_write_shared);
}

TEST_CASE("tmpfs: xattrs") {
    World w;
    w.write_file("/f", "x");
    Inode& inode = *resolve(w.task(), kCwd, "/f")->dentry()->inode();
    Task& t = w.task();
    CHECK(inode.get_xattr(t, "user.a").error() == ENODATA);
    CHECK(inode.set_xattr(t, "user.a", "1", XATTR_REPLACE).error() == ENODATA);
    CHECK(inode.set_xattr(t, "user.a", "1", XATTR_CREATE).ok());
    CHECK(inode.set_xattr(t, "user.a", "1", XATTR_CREATE).error() == EEXIST);
    CHECK(*inode.get_xattr(t, "user.a") == "1");
    CHECK(inode.list_xattrs(t)->size() == 1);
    CHECK(inode.set_xattr(t, "user.big", std::string(200'000, 'x'), 0).error() == ENOSPC);
    CHECK(inode.remove_xattr(t, "user.a").ok());
    CHECK(inode.remove_xattr(t, "user.a").error() == ENODATA);
    CHECK(inode.set_xattr(t, "system.posix_acl_access", "", 0).error() == EOPNOTSUPP);
}

TEST_CASE("memfd: seals hold") {
    World w;
    RefPtr<File> plain = *make_memfd(w.task(), "plain", 0);
    CHECK(*plain->fcntl(w.task(), F_GET_SEALS, 0) == F_SEAL_SEAL);
    CHECK(plain->fcntl(w.task(), F_ADD_SEALS, F_SEAL_GROW).error() == EPERM);
    CHECK(file_name(*plain, w.task().fs().root()) == "/memfd:plain (deleted)");
    RefPtr<File> file = *make_memfd(w.task(), "sealed", MFD_ALLOW_SEALING);
    test::write_some(w, *file, "content");
    CHECK(file->fcntl(w.task(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK).ok());
    CHECK(file->truncate(w.task(), 3).error() == EPERM);
    CHECK(file->truncate(w.task(), 30).error() == EPERM);
    CHECK(file->fcntl(w.task(), F_ADD_SEALS, F_SEAL_WRITE).ok());
    std::string x = "x";
    IoBuffer buffer = IoBuffer::sentry(x.data(), 1);
    CHECK(file->pwrite(w.task(), buffer, 0).error() == EPERM);
    CHECK(file->map_source(w.task(), PROT_READ | PROT_WRITE, true).error() == EPERM);
}

TEST_CASE("tmpfs: a directory nested ten thousand deep can be dropped") {
    World w;
    for (int i = 0; i < 10'000; i++) {
        REQUIRE(w.mkdir("d") == 0);
        REQUIRE(w.chdir("d") == 0);
    }
    CHECK(w.chdir("/") == 0);
}

TEST_CASE("directories: entries that come and go do not disturb a reader") {
    World w;
    for (int i = 0; i < 200; i++) {
        w.write_file("/f" + std::to_string(i), "");
    }
    class Few final : public DirectorySink {
      public:
        bool add(std::string_view name, uint64_t, uint8_t, int64_t) override {
            if (room_ == 0) {
                return false;
            }
            room_--;
            names.emplace_back(name);
            return true;
        }
        void make_room(int n) { room_ = n; }
        std::vector<std::string> names;

      private:
        int room_ = 0;
    } sink;
    RefPtr<File> directory = w.open("/", O_RDONLY | O_DIRECTORY);
    size_t before;
    do {  // what rm -r does
        before = sink.names.size();
        sink.make_room(7);
        REQUIRE(directory->read_directory(w.task(), sink).ok());
        for (size_t i = before; i < sink.names.size(); i++) {
            if (sink.names[i][0] == 'f') {
                CHECK(w.unlink("/" + sink.names[i]) == 0);
            }
        }
    } while (sink.names.size() != before);
    CHECK(sink.names.size() == 202);
    CHECK(w.list("/").empty());
}
