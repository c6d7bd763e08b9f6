#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

TEST_CASE("names: mkdir, mknod, symlink and link make what they say") {
    TempDir dir;
    Gofer gofer(dir);
    const NodeId root = gofer.root();
    const auto d = MUST(gofer->mkdir(root, "d", {02770, 5, 6}));
    CHECK(d.attributes.mode == (S_IFDIR | 02770));
    CHECK(d.attributes.uid == 5);
    CHECK(d.attributes.gid == 6);
    const auto p = MUST(gofer->mknod(d.id, "p", {S_IFIFO | 0620, 7, 8}, 0, 0));
    CHECK(p.attributes.mode == (S_IFIFO | 0620));
    CHECK(p.attributes.uid == 7);
    const auto s = MUST(gofer->mknod(d.id, "s", {S_IFSOCK | 0777, 0, 0}, 0, 0));
    CHECK(S_ISSOCK(s.attributes.mode));
    CHECK_ERRNO(EPERM, gofer->mknod(d.id, "c", {S_IFCHR | 0666, 0, 0}, 1, 3));
    CHECK_ERRNO(EPERM, gofer->mknod(d.id, "b", {S_IFBLK | 0666, 0, 0}, 8, 0));
    CHECK_ERRNO(EINVAL, gofer->mknod(d.id, "x", {S_IFDIR | 0666, 0, 0}, 0, 0));
    const auto l = MUST(gofer->symlink(d.id, "l", "/absolute/../target", {0777, 9, 10}));
    CHECK(S_ISLNK(l.attributes.mode));
    CHECK(l.attributes.uid == 9);
    CHECK(MUST(gofer->read_link(l.id)) == "/absolute/../target");
    const auto f = MUST(gofer->create(d.id, "f", O_RDWR, {0644, 0, 0}));
    const auto h = MUST(gofer->link(f.node.id, root, "h"));
    CHECK(h.attributes.ino == f.node.attributes.ino);
    CHECK(h.attributes.nlink == 2);
    CHECK(h.id != f.node.id);
    CHECK_ERRNO(EEXIST, gofer->link(f.node.id, root, "h"));
    CHECK_ERRNO(EPERM, gofer->link(d.id, root, "dd"));
    CHECK_ERRNO(EEXIST, gofer->mkdir(root, "d", {0755, 0, 0}));
    CHECK_ERRNO(EINVAL, gofer->symlink(root, "n", std::string_view("a\0b", 3), {0777, 0, 0}));
    for (const char* bad : {"", ".", "..", "a/b", "/"}) {
        CAPTURE(bad);
        CHECK_ERRNO(EINVAL, gofer->mkdir(root, bad, {0755, 0, 0}));
        CHECK_ERRNO(EINVAL, gofer->unlink(root, bad));
        CHECK_ERRNO(EINVAL, gofer->rmdir(d.id, bad));
        CHECK_ERRNO(EINVAL, gofer->rename(root, "h", d.id, bad));
        CHECK_ERRNO(EINVAL, gofer->rename(root, bad, d.id, "h"));
        CHECK_ERRNO(EINVAL, gofer->link(f.node.id, root, bad));
    }
}

TEST_CASE("names: what is unlinked while it is held can still be looked at") {
    TempDir dir;
    dir.file("f", "abc");
    dir.directory("d");
    Gofer gofer(dir);
    const Node f = gofer.at("f");
    const Node d = gofer.at("d");
    CHECK_ERRNO(EISDIR, gofer->unlink(gofer.root(), "d"));
    CHECK_ERRNO(ENOTDIR, gofer->rmdir(gofer.root(), "f"));
    REQUIRE(gofer->unlink(gofer.root(), "f").ok());
    REQUIRE(gofer->rmdir(gofer.root(), "d").ok());
    CHECK(MUST(gofer->stat(f.id)).nlink == 0);
    CHECK(MUST(gofer->stat(d.id)).ino == d.attributes.ino);
    CHECK_ERRNO(ENOENT, gofer->create(d.id, "x", O_RDWR, {0644, 0, 0}));
    CHECK_ERRNO(ESTALE, gofer->open(f.id, O_RDONLY));
    // The name is free for a node of its own.
    const auto again = MUST(gofer->create(gofer.root(), "f", O_RDWR, {0644, 0, 0}));
    CHECK(again.node.id != f.id);
    CHECK_ERRNO(ENOENT, gofer->unlink(gofer.root(), "none"));
}

TEST_CASE("names: nodes follow a rename, with all that is below them, when no descriptor is left") {
    TempDir dir;
    dir.directory("a");
    dir.directory("a/b");
    dir.file("a/b/f", "abc");
    dir.directory("z");
    for (int i = 0; i < 40; i++) {
        dir.directory("other" + std::to_string(i));
    }
    Gofer::Options options;
    options.descriptors = NodeTable::kMinDescriptors;
    Gofer gofer(dir, options);
    const auto walked = MUST(gofer->walk(gofer.root(), "a/b/f"));
    const Node z = gofer.at("z");
    REQUIRE(gofer->rename(gofer.root(), "a", z.id, "new").ok());
    for (int i = 0; i < 40; i++) {
        MUST(gofer->stat(gofer.at("other" + std::to_string(i)).id));
    }
    CHECK(MUST(gofer->stat(walked.nodes[2].id)).size == 3);
    CHECK(MUST(gofer->open(walked.nodes[2].id, O_RDONLY)).file.valid());
    CHECK(MUST(gofer->walk(gofer.root(), "z/new/b/f")).nodes[3].id == walked.nodes[2].id);
    CHECK(MUST(gofer->walk(gofer.root(), "a")).error == ENOENT);
}

TEST_CASE("names: rename replaces, exchanges, or refuses to") {
    TempDir dir;
    dir.file("f", "f");
    dir.file("g", "gg");
    dir.directory("d");
    Gofer gofer(dir);
    const NodeId root = gofer.root();
    const Node f = gofer.at("f");
    const Node g = gofer.at("g");
    const Node d = gofer.at("d");
    CHECK_ERRNO(EEXIST, gofer->rename(root, "f", root, "g", RENAME_NOREPLACE));
    CHECK_ERRNO(EINVAL, gofer->rename(root, "f", root, "g", RENAME_WHITEOUT));
    CHECK_ERRNO(EINVAL, gofer->rename(root, "f", root, "g", RENAME_NOREPLACE | RENAME_EXCHANGE));
    REQUIRE(gofer->rename(root, "f", d.id, "x").ok());
    REQUIRE(gofer->rename(d.id, "x", root, "g", RENAME_EXCHANGE).ok());
    CHECK(dir.read("g") == "f");
    CHECK(dir.read("d/x") == "gg");
    CHECK(gofer.at("g").id == f.id);
    CHECK(gofer.at("d/x").id == g.id);
    REQUIRE(gofer->rename(root, "g", d.id, "x").ok());
    CHECK(gofer.at("d/x").id == f.id);
    CHECK(MUST(gofer->stat(g.id)).nlink == 0);
    CHECK_ERRNO(EINVAL, gofer->rename(root, "d", d.id, "inside"));
    // Onto itself: nothing happens, and the node is still there.
    REQUIRE(gofer->rename(d.id, "x", d.id, "x").ok());
    CHECK(gofer.at("d/x").id == f.id);
}

TEST_CASE("names: rename and link do not cross mounts") {
    TempDir dir;
    TempDir other;
    dir.file("f");
    const ScopedFd base(::open("/", O_PATH | O_CLOEXEC));
    Gofer::Options options;
    const std::string source = other.path().substr(1);
    options.more.push_back({base.get(), source, "/mnt", 0});
    Gofer gofer(dir, options);
    REQUIRE(gofer->mounts().size() == 2);
    CHECK(gofer->mounts()[1].destination == "/mnt");
    CHECK_ERRNO(EXDEV, gofer->rename(gofer.root(0), "f", gofer.root(1), "f"));
    CHECK_ERRNO(EXDEV, gofer->link(gofer.at("f").id, gofer.root(1), "f"));
}

TEST_CASE("names: a rename that the tree of nodes does not expect makes no cycle") {
    TempDir dir;
    dir.directory("a");
    dir.directory("a/b");
    Gofer gofer(dir);
    const auto walked = MUST(gofer->walk(gofer.root(), "a/b"));
    MUST(gofer->stat(walked.nodes[1].id));
    // On the host b moves out of a; the node of b keeps its descriptor and its old place.
    REQUIRE(::rename((dir / "a/b").c_str(), (dir / "b").c_str()) == 0);
    REQUIRE(gofer->rename(gofer.root(), "a", walked.nodes[1].id, "a").ok());
    struct stat s;
    CHECK(::stat((dir / "b/a").c_str(), &s) == 0);
    CHECK(MUST(gofer->stat(walked.nodes[1].id)).ino == walked.nodes[1].attributes.ino);
    CHECK(MUST(gofer->stat(walked.nodes[0].id)).ino == s.st_ino);
    gofer->close(walked.nodes[0].id);
    gofer->close(walked.nodes[1].id);
    CHECK(MUST(gofer->walk(gofer.root(), "b/a")).nodes[1].attributes.ino == s.st_ino);
}
