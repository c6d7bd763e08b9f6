#include "unit/kernel/fs/vfs/harness.h"

#include <linux/fs.h>

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;

TEST_CASE("rename: files and directories replace their like only") {
    World w;
    w.write_file("/a", "a");
    w.write_file("/b", "b");
    REQUIRE(w.mkdir("/d") == 0);
    REQUIRE(w.mkdir("/e") == 0);
    w.write_file("/e/f", "f");
    CHECK(w.rename("/a", "/b") == 0);
    CHECK(w.read_file("/b") == "a");
    CHECK(w.stat_error("/a") == ENOENT);
    CHECK(w.rename("/b", "/d") == EISDIR);
    CHECK(w.rename("/d", "/b") == ENOTDIR);
    CHECK(w.rename("/d", "/e") == ENOTEMPTY);
    CHECK(w.rename("/e", "/d") == 0);
    CHECK(w.read_file("/d/f") == "f");
    CHECK(w.rename("/d", "/d/inside") == EINVAL);
    CHECK(w.rename("/d/f", "/d") == ENOTEMPTY);
    CHECK(w.rename("/d/.", "/x") == EBUSY);
    CHECK(w.rename("/missing", "/x") == ENOENT);
    CHECK(w.rename("/b", "/x/") == ENOTDIR);
    CHECK(w.rename("/b", "/d/f", RENAME_NOREPLACE) == EEXIST);
    CHECK(w.rename("/b", "/d", RENAME_EXCHANGE) == 0);
    CHECK(w.read_file("/d") == "a");
    CHECK(w.read_file("/b/f") == "f");
}

TEST_CASE("rename: open files and working directories follow") {
    World w;
    REQUIRE(w.mkdir("/a") == 0);
    REQUIRE(w.mkdir("/a/b") == 0);
    REQUIRE(w.chdir("/a/b") == 0);
    RefPtr<File> file = w.open("/a/b/f", O_CREAT | O_RDWR);
    CHECK(w.rename("/a", "/z") == 0);
    CHECK(w.cwd() == "/z/b");
    CHECK(path_text(file->path(), w.task().fs().root()) == "/z/b/f");
    CHECK(w.stat_error("f") == 0);
    CHECK(w.stat("/z").st_nlink == 3);
    CHECK(w.unlink("f") == 0);
    CHECK(path_text(file->path(), w.task().fs().root()) == "/z/b/f (deleted)");
    CHECK(w.rmdir("/z/b") == 0);
    CHECK(w.open_error("x", O_CREAT | O_WRONLY) == ENOENT);
    CHECK(w.mkdir("x") == ENOENT);
}

TEST_CASE("unlink: the file lives on as long as it is open") {
    World w;
    w.write_file("/f", "still here");
    RefPtr<File> file = w.open("/f");
    CHECK(w.link("/f", "/g") == 0);
    CHECK(w.stat("/f").st_nlink == 2);
    CHECK(w.unlink("/f") == 0);
    CHECK(w.stat("/g").st_nlink == 1);
    CHECK(w.unlink("/g") == 0);
    CHECK(test::read_some(w, *file, 100) == "still here");
    CHECK(file->stat(w.task())->st_nlink == 0);
    CHECK(w.unlink("/missing") == ENOENT);
    REQUIRE(w.mkdir("/d") == 0);
    CHECK(w.unlink("/d") == EISDIR);
    CHECK(w.link("/d", "/x") == EPERM);
    CHECK(w.rmdir("/d/.") == EINVAL);
    CHECK(w.rmdir("/") == EBUSY);
    w.write_file("/d/f", "x");
    CHECK(w.rmdir("/d") == ENOTEMPTY);
    CHECK(w.rmdir("/d/f") == ENOTDIR);
}

TEST_CASE("names: a negative answer is forgotten when the name is made") {
    World w;
    for (int i = 0; i < 3; i++) {
        CHECK(w.stat_error("/f") == ENOENT);
        w.write_file("/f", "x");
        CHECK(w.stat_error("/f") == 0);
        CHECK(w.unlink("/f") == 0);
        CHECK(w.stat_error("/f") == ENOENT);
        CHECK(w.mkdir("/f") == 0);
        CHECK(w.rmdir("/f") == 0);
        CHECK(w.symlink("nowhere", "/f") == 0);
        CHECK(w.rename("/f", "/g") == 0);
        CHECK(w.stat_error("/f", AT_SYMLINK_NOFOLLOW) == ENOENT);
        CHECK(w.unlink("/g") == 0);
    }
}

TEST_CASE("attributes: who may change what") {
    World w;
    w.write_file("/f", "x");
    REQUIRE(w.chown("/f", 1000, 1000) == 0);
    REQUIRE(w.chmod("/f", 06755) == 0);
    w.become(1001, 1001);
    CHECK(w.chmod("/f", 0777) == EPERM);
    CHECK(w.chown("/f", 1001, UINT32_MAX) == EPERM);
    w.become(1000, 1000);
    CHECK(w.chown("/f", 1001, UINT32_MAX) == EPERM);
    CHECK(w.chown("/f", UINT32_MAX, 5) == EPERM);
    CHECK((w.stat("/f").st_mode & 07777) == 06755);
    {
        RefPtr<File> file = w.open("/f", O_RDWR);
        strip_privilege(w.task(), *file);
    }
    CHECK((w.stat("/f").st_mode & 07777) == 0755);
    CHECK(w.chmod("/f", 04700) == 0);
    CHECK(w.chown("/f", UINT32_MAX, 1000) == 0);
    CHECK((w.stat("/f").st_mode & 07777) == 0700);
}

TEST_CASE("open: O_TMPFILE and its first link") {
    World w;
    const int kTmpfile = 020000000 | O_DIRECTORY;
    RefPtr<File> file = w.open("/", kTmpfile | O_RDWR);
    CHECK(test::write_some(w, *file, "anonymous") == 9);
    CHECK(w.list("/").empty());
    CHECK(file->stat(w.task())->st_nlink == 0);
    Inode& root = *w.task().fs().root().dentry()->inode();
    CHECK(root.link(w.task(), "named", *file->path().dentry()->inode()).ok());
    CHECK(w.read_file("/named") == "anonymous");
    RefPtr<File> exclusive = w.open("/", kTmpfile | O_RDWR | O_EXCL);
    CHECK(root.link(w.task(), "no", *exclusive->path().dentry()->inode()).error() == ENOENT);
    CHECK(w.open_error("/", kTmpfile | O_RDONLY) == EINVAL);
}
