#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

TEST_CASE("walk: a whole path gives every component with its attributes") {
    TempDir dir;
    dir.directory("a");
    dir.directory("a/b");
    dir.file("a/b/c", "hello");
    Gofer gofer(dir);
    const auto walked = MUST(gofer->walk(gofer.root(), "a/b/c"));
    CHECK(walked.stop == WalkStop::kComplete);
    REQUIRE(walked.nodes.size() == 3);
    struct stat s;
    REQUIRE(::stat((dir / "a/b/c").c_str(), &s) == 0);
    const Attributes& a = walked.nodes[2].attributes;
    CHECK(a.ino == s.st_ino);
    CHECK(a.size == 5);
    CHECK(a.mode == s.st_mode);
    CHECK(a.uid == s.st_uid);
    CHECK(a.nlink == 1);
    CHECK(a.modify_time.seconds == s.st_mtim.tv_sec);
    CHECK(a.modify_time.nanoseconds == s.st_mtim.tv_nsec);
    CHECK(S_ISDIR(walked.nodes[1].attributes.mode));
    CHECK_FALSE(walked.file.valid());
}

TEST_CASE("walk: the same name is the same node, and a node can be a base") {
    TempDir dir;
    dir.directory("a");
    dir.file("a/f");
    Gofer gofer(dir);
    const auto whole = MUST(gofer->walk(gofer.root(), "a/f"));
    const auto again = MUST(gofer->walk(gofer.root(), "a"));
    const auto below = MUST(gofer->walk(again.nodes[0].id, "f"));
    CHECK(whole.nodes[0].id == again.nodes[0].id);
    CHECK(whole.nodes[1].id == below.nodes[0].id);
}

TEST_CASE("walk: it stops at what is missing, at files, and at symlinks, with the way so far") {
    TempDir dir;
    dir.directory("a");
    dir.file("a/f");
    dir.link("a/l", "../else/where");
    Gofer gofer(dir);

    const auto missing = MUST(gofer->walk(gofer.root(), "a/x/y"));
    CHECK(missing.stop == WalkStop::kError);
    CHECK(missing.error == ENOENT);
    CHECK(missing.nodes.size() == 1);

    const auto file = MUST(gofer->walk(gofer.root(), "a/f/y"));
    CHECK(file.stop == WalkStop::kNotDirectory);
    CHECK(file.nodes.size() == 2);

    for (const char* path : {"a/l", "a/l/y"}) {
        const auto link = MUST(gofer->walk(gofer.root(), path));
        CHECK(link.stop == WalkStop::kSymlink);
        REQUIRE(link.nodes.size() == 2);
        CHECK(link.target == "../else/where");
        CHECK(MUST(gofer->read_link(link.nodes[1].id)) == "../else/where");
    }
    const auto base = MUST(gofer->walk(gofer.root(), "a/f"));
    CHECK_ERRNO(ENOTDIR, gofer->walk(base.nodes[1].id, "x"));
    CHECK_ERRNO(EINVAL, gofer->read_link(base.nodes[1].id));
}

TEST_CASE("walk: names that are no names are refused") {
    TempDir dir;
    dir.directory("a");
    Gofer gofer(dir);
    for (const std::string_view path :
         {std::string_view(""), std::string_view("/"), std::string_view("/etc"),
          std::string_view(".."), std::string_view("a/.."), std::string_view("a/../.."),
          std::string_view("."), std::string_view("a/./b"), std::string_view("a//b"),
          std::string_view("a/"), std::string_view("a\0b", 3)}) {
        CAPTURE(path);
        CHECK_ERRNO(EINVAL, gofer->walk(gofer.root(), path));
    }
    CHECK_ERRNO(ENAMETOOLONG, gofer->walk(gofer.root(), std::string(256, 'x')));
    std::string deep = "x";
    while (deep.size() <= kMaxPath) {
        deep += "/x";
    }
    CHECK_ERRNO(ENAMETOOLONG, gofer->walk(gofer.root(), deep));
}

TEST_CASE("walk: a path of more components than fit one answer") {
    TempDir dir;
    std::string path;
    constexpr int kDepth = 1200;
    ScopedFd at(::open(dir.path().c_str(), O_PATH | O_CLOEXEC));
    for (int i = 0; i < kDepth; i++) {
        REQUIRE(::mkdirat(at.get(), "d", 0755) == 0);
        at.reset(::openat(at.get(), "d", O_PATH | O_CLOEXEC));
        path += i == 0 ? "d" : "/d";
    }
    Gofer gofer(dir);
    const auto walked = MUST(gofer->walk(gofer.root(), path));
    CHECK(walked.stop == WalkStop::kComplete);
    REQUIRE(walked.nodes.size() == kDepth);
    struct stat s;
    REQUIRE(::fstat(at.get(), &s) == 0);
    CHECK(walked.nodes.back().attributes.ino == s.st_ino);
    // By now most descriptors have been given up: the deepest ones must be found again.
    for (const size_t depth : {size_t{3}, size_t{600}, size_t{1199}}) {
        CHECK(MUST(gofer->stat(walked.nodes[depth].id)).ino == walked.nodes[depth].attributes.ino);
    }
}

TEST_CASE("walk: the last component is opened on the way, if it is a regular file") {
    TempDir dir;
    dir.directory("a");
    dir.file("a/f", "contents");
    Gofer gofer(dir);
    const auto file = MUST(gofer->walk(gofer.root(), "a/f", O_RDONLY));
    CHECK(file.stop == WalkStop::kComplete);
    REQUIRE(file.file.valid());
    char text[16] = {};
    CHECK(::read(file.file.get(), text, sizeof text) == 8);
    CHECK(std::string(text) == "contents");

    const auto directory = MUST(gofer->walk(gofer.root(), "a", O_RDONLY));
    CHECK(directory.stop == WalkStop::kComplete);
    CHECK_FALSE(directory.file.valid());
    CHECK(directory.open_error == EAGAIN);

    const auto missing = MUST(gofer->walk(gofer.root(), "a/g", O_RDONLY));
    CHECK(missing.error == ENOENT);
    CHECK_FALSE(missing.file.valid());
}

TEST_CASE("walk: a name replaced on the host is a new node, and the old one stays what it was") {
    TempDir dir;
    dir.file("f", "old");
    Gofer gofer(dir);
    const auto before = MUST(gofer->walk(gofer.root(), "f"));
    CHECK(MUST(gofer->stat(before.nodes[0].id)).size == 3);  // opens a descriptor
    dir.file("new", "newer");
    REQUIRE(::rename((dir / "new").c_str(), (dir / "f").c_str()) == 0);
    const auto after = MUST(gofer->walk(gofer.root(), "f"));
    CHECK(after.nodes[0].id != before.nodes[0].id);
    CHECK(after.nodes[0].attributes.size == 5);
    CHECK(MUST(gofer->stat(before.nodes[0].id)).size == 3);
    CHECK_ERRNO(ESTALE, gofer->open(before.nodes[0].id, O_RDONLY));
    CHECK(MUST(gofer->open(after.nodes[0].id, O_RDONLY)).file.valid());
}

TEST_CASE("walk: a directory swapped for a symlink all the time never leads outside") {
    TempDir outside;
    outside.file("secret", "secret");
    TempDir dir;
    dir.directory("d");
    dir.file("d/secret", "mine");
    dir.link("l", outside.path());
    struct stat theirs;
    REQUIRE(::stat((outside / "secret").c_str(), &theirs) == 0);
    Gofer gofer(dir);

    std::atomic<bool> stop{false};
    std::thread swapper([&] {
        const std::string a = dir / "d";
        const std::string b = dir / "l";
        while (!stop.load(std::memory_order_relaxed)) {
            ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
        }
    });
    int complete = 0;
    int stopped = 0;
    for (int i = 0; i < 3000; i++) {
        auto walked = MUST(gofer->walk(gofer.root(), "d/secret", O_RDONLY));
        if (walked.stop == WalkStop::kComplete) {
            complete++;
            CHECK(walked.nodes[1].attributes.ino != theirs.st_ino);
            if (walked.file.valid()) {
                char text[8] = {};
                CHECK(::pread(walked.file.get(), text, sizeof text, 0) == 4);
                CHECK(std::string(text) == "mine");
            }
        } else {
            stopped++;
            CHECK((walked.stop == WalkStop::kSymlink || walked.error == ENOENT ||
                   walked.error == ESTALE || walked.error == ENOTDIR));
        }
        for (const Node& node : walked.nodes) {
            gofer->close(node.id);
        }
    }
    stop = true;
    swapper.join();
    CHECK(complete > 0);
    CHECK(stopped > 0);
}

TEST_CASE("walk: fifty thousand nodes held with few descriptors") {
    TempDir dir;
    constexpr int kDirectories = 500;
    constexpr int kFiles = 99;
    for (int i = 0; i < kDirectories; i++) {
        const std::string name = "d" + std::to_string(i);
        dir.directory(name);
        for (int j = 0; j < kFiles; j++) {
            const std::string file = dir / name + "/f" + std::to_string(j);
            ScopedFd fd(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
            REQUIRE(fd.valid());
        }
    }
    Gofer::Options options;
    options.descriptors = 64;
    options.descriptor_limit = 128;
    Gofer gofer(dir, options);
    std::vector<Node> nodes;
    for (int i = 0; i < kDirectories; i++) {
        const auto walked = MUST(gofer->walk(gofer.root(), "d" + std::to_string(i)));
        nodes.push_back(walked.nodes[0]);
        for (int j = 0; j < kFiles; j++) {
            const auto file =
                MUST(gofer->walk(walked.nodes[0].id, "f" + std::to_string(j), kNoOpen));
            nodes.push_back(file.nodes[0]);
        }
    }
    REQUIRE(nodes.size() == 50'000);
    CHECK(gofer.open_descriptors() < 100);
    for (size_t i = 0; i < nodes.size(); i += 17) {
        CHECK(MUST(gofer->stat(nodes[i].id)).ino == nodes[i].attributes.ino);
    }
    CHECK(gofer.open_descriptors() < 100);
    std::vector<CloseItem> items;
    for (const Node& node : nodes) {
        items.push_back({node.id, 1});
    }
    gofer->close(items.data(), items.size());
    CHECK_ERRNO(EBADF, gofer->stat(nodes[0].id));
    CHECK_ERRNO(EBADF, gofer->stat(nodes.back().id));
    CHECK(gofer.open_descriptors() < 16);
}

TEST_CASE("channels: many threads ask at once and each gets its own answers") {
    TempDir dir;
    for (int i = 0; i < 8; i++) {
        dir.file("f" + std::to_string(i), std::string(static_cast<size_t>(i) + 1, 'x'));
    }
    Gofer gofer(dir);
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (size_t t = 0; t < 8; t++) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 500; i++) {
                auto walked = gofer->walk(gofer.root(), "f" + std::to_string(t), O_RDONLY);
                if (!walked.ok() || walked->nodes.size() != 1 ||
                    walked->nodes[0].attributes.size != t + 1 || !walked->file.valid()) {
                    wrong++;
                } else {
                    gofer->close(walked->nodes[0].id);
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    // All nodes given back: only channels, the root and what a shell would call the standard ones.
    CHECK_ERRNO(EBADF, gofer->stat(0x1'0000'0005));
    CHECK(gofer.open_descriptors() < 32);
}
