#include "unit/kernel/fs/vfs/harness.h"

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;

TEST_CASE("walk: errors come in Linux's order") {
    World w;
    REQUIRE(w.mkdir("/d") == 0);
    w.write_file("/f", "x");
    CHECK(w.stat_error("/missing") == ENOENT);
    CHECK(w.stat_error("/missing/x") == ENOENT);
    CHECK(w.stat_error("/f/x") == ENOTDIR);
    CHECK(w.stat_error("/f/") == ENOTDIR);
    CHECK(w.stat_error("/f/.") == ENOTDIR);
    CHECK(w.stat_error("/f/..") == ENOTDIR);
    CHECK(w.stat_error("") == ENOENT);
    CHECK(w.stat_error("/d/") == 0);
    CHECK(w.stat_error("//d//.//") == 0);
    CHECK(w.stat_error("/" + std::string(255, 'a')) == ENOENT);
    CHECK(w.stat_error("/" + std::string(256, 'a')) == ENAMETOOLONG);
    CHECK(w.stat_error("/" + std::string(256, 'a') + "/x") == ENAMETOOLONG);
}

TEST_CASE("walk: symlinks are followed, at most forty") {
    World w;
    REQUIRE(w.mkdir("/d") == 0);
    w.write_file("/d/f", "deep");
    REQUIRE(w.symlink("d", "/relative") == 0);
    REQUIRE(w.symlink("/d/f", "/absolute") == 0);
    REQUIRE(w.symlink("../d/./f", "/d/up") == 0);
    REQUIRE(w.symlink("loop", "/loop") == 0);
    REQUIRE(w.symlink("nowhere", "/dangling") == 0);
    CHECK(w.read_file("/relative/f") == "deep");
    CHECK(w.read_file("/absolute") == "deep");
    CHECK(w.read_file("/relative/up") == "deep");
    CHECK(w.stat_error("/loop") == ELOOP);
    CHECK(w.stat_error("/loop", AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(w.stat_error("/dangling") == ENOENT);
    CHECK(S_ISLNK(w.stat("/relative").st_mode));
    // A trailing slash follows whatever the flags say.
    CHECK(S_ISDIR(w.stat("/relative/").st_mode));
    CHECK(w.open_error("/relative", O_RDONLY | O_NOFOLLOW) == ELOOP);
    CHECK(w.open_error("/relative", O_PATH | O_NOFOLLOW) == 0);
    CHECK(w.open_error("/absolute", O_RDONLY | O_DIRECTORY) == ENOTDIR);
    std::string previous = "/d";
    for (int i = 0; i < 41; i++) {
        const std::string name = "/l" + std::to_string(i);
        REQUIRE(w.symlink(previous, name) == 0);
        previous = name;
    }
    CHECK(w.stat_error("/l39") == 0);
    CHECK(w.stat_error("/l40") == ELOOP);
}

TEST_CASE("walk: creating through a dangling symlink makes its target") {
    World w;
    REQUIRE(w.symlink("/target", "/link") == 0);
    CHECK(w.open_error("/link", O_CREAT | O_EXCL | O_WRONLY) == EEXIST);
    CHECK(w.open_error("/link", O_CREAT | O_NOFOLLOW | O_WRONLY) == ELOOP);
    w.write_file("/link", "made");
    CHECK(w.read_file("/target") == "made");
    CHECK(w.open_error("/new/", O_CREAT | O_WRONLY) == EISDIR);
    CHECK(w.open_error("/.", O_CREAT | O_WRONLY) == EISDIR);
    CHECK(w.open_error("/target/new", O_CREAT | O_WRONLY) == ENOTDIR);
}

TEST_CASE("walk: dot-dot stops at the root and at the caller's root") {
    World w;
    REQUIRE(w.mkdir("/a") == 0);
    REQUIRE(w.mkdir("/a/b") == 0);
    w.write_file("/secret", "s");
    REQUIRE(w.symlink("/secret", "/a/b/escape") == 0);
    CHECK(w.stat_error("/../../a") == 0);
    w.task().fs().set_root(*resolve(w.task(), kCwd, "/a/b"));
    CHECK(w.chdir("/") == 0);
    CHECK(w.cwd() == "/");
    CHECK(w.stat_error("../../secret") == ENOENT);
    CHECK(w.stat_error("/escape") == ENOENT);
}

TEST_CASE("walk: openat2's confinements") {
    World w;
    REQUIRE(w.mkdir("/a") == 0);
    REQUIRE(w.mkdir("/a/b") == 0);
    w.write_file("/a/f", "in");
    w.write_file("/f", "out");
    REQUIRE(w.symlink("/f", "/a/abs") == 0);
    REQUIRE(w.symlink("../f", "/a/b/up") == 0);
    REQUIRE(w.symlink("../../f", "/a/b/out") == 0);
    REQUIRE(w.chdir("/a") == 0);
    const auto walk = [&](const char* path, uint32_t flags) {
        const auto at = resolve(w.task(), kCwd, path, flags);
        return at.ok() ? 0 : at.error().value();
    };
    CHECK(walk("f", kBeneath) == 0);
    CHECK(walk("../f", kBeneath) == EXDEV);
    CHECK(walk("/f", kBeneath) == EXDEV);
    CHECK(walk("abs", kBeneath) == EXDEV);
    CHECK(walk("b/up", kBeneath) == 0);
    CHECK(walk("b/out", kBeneath) == EXDEV);
    CHECK(walk("b/up", kNoSymlinks) == ELOOP);
    const auto rooted = resolve(w.task(), kCwd, "abs", kInRoot);
    REQUIRE(rooted.ok());
    CHECK(path_text(*rooted, w.task().fs().root()) == "/a/f");
    CHECK(walk("../../../f", kInRoot) == 0);
}

TEST_CASE("permission: each directory on the way has to be searchable") {
    World w;
    REQUIRE(w.mkdir("/closed", 0700) == 0);
    w.write_file("/closed/f", "x");
    REQUIRE(w.mkdir("/open", 0755) == 0);
    w.write_file("/open/f", "x");
    REQUIRE(w.chmod("/open/f", 0604) == 0);
    w.become(1000, 1000);
    CHECK(w.stat_error("/closed/f") == EACCES);
    CHECK(w.stat_error("/closed/missing") == EACCES);
    CHECK(w.open_error("/open/f", O_RDONLY) == 0);
    CHECK(w.open_error("/open/f", O_RDWR) == EACCES);
    CHECK(w.open_error("/open/new", O_CREAT | O_WRONLY) == EACCES);
    CHECK(w.mkdir("/open") == EEXIST);
    // The one class that applies decides, even when another would allow more.
    w.become(0, 1000);
    CHECK(w.open_error("/open/f", O_RDONLY) == 0);
    w.become(5, 0);
    CHECK(w.open_error("/open/f", O_RDONLY) == EACCES);
}

TEST_CASE("permission: the sticky bit and set-group-ID directories") {
    World w;
    REQUIRE(w.mkdir("/tmp") == 0);
    REQUIRE(w.chmod("/tmp", 01777) == 0);
    w.become(1000, 1000);
    w.write_file("/tmp/mine", "x");
    w.become(1001, 1001);
    CHECK(w.unlink("/tmp/mine") == EPERM);
    CHECK(w.rename("/tmp/mine", "/tmp/other") == EPERM);
    w.become(1000, 1000);
    CHECK(w.unlink("/tmp/mine") == 0);
    w.become_root();
    REQUIRE(w.mkdir("/shared") == 0);
    REQUIRE(w.chown("/shared", 0, 77) == 0);
    REQUIRE(w.chmod("/shared", 02777) == 0);
    w.become(1000, 1000);
    w.write_file("/shared/f", "x");
    REQUIRE(w.mkdir("/shared/d") == 0);
    CHECK(w.stat("/shared/f").st_gid == 77);
    CHECK(w.stat("/shared/d").st_gid == 77);
    CHECK((w.stat("/shared/d").st_mode & S_ISGID) != 0);
}
