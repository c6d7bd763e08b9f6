#include "unit/kernel/fs/vfs/harness.h"

#include "kernel/fs/overlay/overlay.h"

#include <linux/fs.h>

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;
using Names = std::vector<std::string>;

namespace {

/// A lower layer of two directories and some files, and an overlay over it.
struct Layers {
    RefPtr<TmpfsFileSystem> lower = TmpfsFileSystem::create({});
    RefPtr<TmpfsFileSystem> upper = TmpfsFileSystem::create({});

    Layers() {
        World below(lower);
        REQUIRE(below.mkdir("/etc") == 0);
        REQUIRE(below.mkdir("/etc/deep") == 0);
        below.write_file("/etc/passwd", "root");
        below.write_file("/etc/deep/f", "deep");
        below.write_file("/hello", "hello world");
        REQUIRE(below.link("/hello", "/hello2") == 0);
        REQUIRE(below.symlink("etc/passwd", "/link") == 0);
        REQUIRE(below.mkdir("/empty") == 0);
    }
    RefPtr<FileSystem> overlay() { return OverlayFileSystem::create(upper, {lower}); }
    /// What the lower layer has, to see that it never changes.
    std::string lower_file(const std::string& path) { return World(lower).read_file(path); }
};

}  // namespace

TEST_CASE("overlay: what is not written is the lower layer's") {
    Layers layers;
    World w(layers.overlay());
    CHECK(w.read_file("/hello") == "hello world");
    CHECK(w.read_file("/link") == "root");
    CHECK(w.list("/") == Names{"empty", "etc", "hello", "hello2", "link"});
    CHECK(w.list("/etc") == Names{"deep", "passwd"});
    CHECK(w.stat_error("/missing") == ENOENT);
    // The mapping is of the lower file itself.
    RefPtr<File> file = w.open("/hello");
    const int lower_fd = static_cast<TmpfsRegular&>(*layers.lower->root_directory()->find("hello"))
                             .host_fd()
                             .value();
    CHECK(file->map_source(w.task(), 1, false)->host_fd == lower_fd);
}

TEST_CASE("overlay: writing copies up, keeps the number, and open descriptors see it") {
    Layers layers;
    World w(layers.overlay());
    RefPtr<File> reader = w.open("/etc/deep/f");
    const struct stat before = w.stat("/etc/deep/f");
    RefPtr<File> writer = w.open("/etc/deep/f", O_RDWR);
    CHECK(test::read_some(w, *writer, 100) == "deep");
    CHECK(test::write_some(w, *writer, "er") == 2);
    CHECK(w.read_file("/etc/deep/f") == "deeper");
    CHECK(test::read_some(w, *reader, 100) == "deeper");
    const struct stat after = w.stat("/etc/deep/f");
    CHECK(after.st_ino == before.st_ino);
    CHECK(after.st_dev == before.st_dev);
    CHECK(layers.lower_file("/etc/deep/f") == "deep");
    CHECK(w.list("/etc/deep") == Names{"f"});
    CHECK(w.chmod("/etc/passwd", 0600) == 0);
    CHECK((w.stat("/etc/passwd").st_mode & 0777) == 0600);
    CHECK(w.read_file("/etc/passwd") == "root");
    CHECK((World(layers.lower).stat("/etc/passwd").st_mode & 0777) == 0644);
}

TEST_CASE("overlay: what is removed stays removed, also when all is forgotten") {
    Layers layers;
    RefPtr<FileSystem> fs = layers.overlay();
    World w(fs);
    RefPtr<File> open = w.open("/hello");
    CHECK(w.unlink("/hello") == 0);
    CHECK(w.stat_error("/hello") == ENOENT);
    CHECK(test::read_some(w, *open, 100) == "hello world");
    CHECK(w.rmdir("/etc") == ENOTEMPTY);
    CHECK(w.rmdir("/empty") == 0);
    w.write_file("/etc/passwd", "changed");
    CHECK(w.unlink("/etc/passwd") == 0);
    open.reset();
    DentryCache::forget_file_system(*fs);
    CHECK(w.stat_error("/hello") == ENOENT);
    CHECK(w.stat_error("/etc/passwd") == ENOENT);
    CHECK(w.list("/") == Names{"etc", "hello2", "link"});
    // Made again, it is new; removed again, the lower one does not come back.
    w.write_file("/hello", "new");
    CHECK(w.read_file("/hello") == "new");
    CHECK(w.unlink("/hello") == 0);
    DentryCache::forget_file_system(*fs);
    CHECK(w.stat_error("/hello") == ENOENT);
    CHECK(layers.lower_file("/hello") == "hello world");
}

TEST_CASE("overlay: a directory made where one was removed is empty") {
    Layers layers;
    RefPtr<FileSystem> fs = layers.overlay();
    World w(fs);
    CHECK(w.unlink("/etc/deep/f") == 0);
    CHECK(w.rmdir("/etc/deep") == 0);
    CHECK(w.mkdir("/etc/deep") == 0);
    DentryCache::forget_file_system(*fs);
    CHECK(w.list("/etc/deep").empty());
    CHECK(w.stat_error("/etc/deep/f") == ENOENT);
}

TEST_CASE("overlay: rename of lower files works, of lower directories is EXDEV") {
    Layers layers;
    RefPtr<FileSystem> fs = layers.overlay();
    World w(fs);
    CHECK(w.rename("/hello", "/etc/moved") == 0);
    CHECK(w.rename("/etc/deep", "/deep") == EXDEV);
    CHECK(w.mkdir("/new") == 0);
    w.write_file("/new/x", "x");
    CHECK(w.rename("/new", "/etc/new") == 0);
    CHECK(w.rename("/etc/new", "/empty") == 0);  // over an empty lower directory
    CHECK(w.rename("/etc/passwd", "/hello2") == 0);
    DentryCache::forget_file_system(*fs);
    CHECK(w.read_file("/etc/moved") == "hello world");
    CHECK(w.stat_error("/hello") == ENOENT);
    CHECK(w.read_file("/hello2") == "root");
    CHECK(w.stat_error("/etc/passwd") == ENOENT);
    CHECK(w.list("/empty") == Names{"x"});
    CHECK(w.unlink("/hello2") == 0);
    DentryCache::forget_file_system(*fs);
    CHECK(w.stat_error("/hello2") == ENOENT);
}

TEST_CASE("overlay: lower layers merge, the topmost wins") {
    Layers layers;
    auto top = TmpfsFileSystem::create({});
    {
        World above(top);
        REQUIRE(above.mkdir("/etc") == 0);
        above.write_file("/etc/passwd", "from the top");
        above.write_file("/etc/hosts", "hosts");
    }
    World w(OverlayFileSystem::create(layers.upper, {top, layers.lower}));
    CHECK(w.list("/etc") == Names{"deep", "hosts", "passwd"});
    CHECK(w.read_file("/etc/passwd") == "from the top");
    CHECK(w.read_file("/etc/deep/f") == "deep");
    w.write_file("/etc/hosts", "h2");
    w.write_file("/etc/deep/g", "g");
    CHECK(w.list("/etc/deep") == Names{"f", "g"});
}

TEST_CASE("overlay: hard links and a copy-up in a forgotten tree") {
    Layers layers;
    RefPtr<FileSystem> fs = layers.overlay();
    World w(fs);
    CHECK(w.link("/hello", "/etc/again") == 0);
    w.write_file("/etc/again", "both");
    CHECK(w.read_file("/hello") == "both");
    CHECK(w.stat("/hello").st_ino == w.stat("/etc/again").st_ino);
    DentryCache::forget_file_system(*fs);
    CHECK(w.stat("/hello").st_nlink == 2);
    CHECK(w.read_file("/hello2") == "hello world");  // a lower link of its own from now on
}
