// What a directory holds, while others write there, and how all of it is removed.

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "kernel/base/scoped_fd.h"
#include "runtime/util/files.h"
#include "runtime/util/tree_usage.h"
#include "unit/runtime/temp_dir.h"

using moat::ScopedFd;
using moat::runtime::remove_tree;
using moat::runtime::tree_usage;

namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Tree : moat::runtime::TempDir {
    const ScopedFd fd{open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
};

/// While it lives, the process may have so many descriptors only.
class FewDescriptors {
  public:
    explicit FewDescriptors(rlim_t count) {
        REQUIRE(getrlimit(RLIMIT_NOFILE, &before_) == 0);
        const rlimit few{count, before_.rlim_max};
        REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
    }
    ~FewDescriptors() { CHECK(setrlimit(RLIMIT_NOFILE, &before_) == 0); }

  private:
    rlimit before_;
};

ScopedFd make_directory(int parent, const char* name) {
    REQUIRE(mkdirat(parent, name, 0755) == 0);
    return ScopedFd(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void write_file(int parent, const char* name, uint64_t bytes) {
    const ScopedFd file(openat(parent, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(moat::runtime::write_all(file.get(), std::string(bytes, 'x')).ok());
}

}  // namespace

TEST_CASE("tree usage: blocks and not sizes, an inode with several names once") {
    const Tree tree;
    write_file(tree.fd.get(), "file", kMiB);
    REQUIRE(linkat(tree.fd.get(), "file", tree.fd.get(), "again", 0) == 0);
    REQUIRE(symlinkat("/usr", tree.fd.get(), "elsewhere") == 0);
    const ScopedFd hole(openat(tree.fd.get(), "hole", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(ftruncate(hole.get(), int64_t{1} << 40) == 0);
    const auto usage = tree_usage(tree.fd.get());
    REQUIRE(usage.ok());
    CHECK(usage->inodes == 4);
    CHECK(usage->bytes >= kMiB);
    CHECK(usage->bytes < kMiB + 65536);
}

TEST_CASE("tree usage: what is deeper than a path can be long is counted, with few descriptors") {
    const Tree tree;
    const std::string name(200, 'd');
    constexpr int kDepth = 150;
    ScopedFd at(openat(tree.fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int i = 0; i < kDepth; i++) {
        write_file(at.get(), "beside", 1);
        make_directory(at.get(), "empty");
        at = make_directory(at.get(), name.c_str());
    }
    write_file(at.get(), "file", kMiB);
    at.reset();
    const FewDescriptors few(100);
    const auto usage = tree_usage(tree.fd.get());
    REQUIRE(usage.ok());
    CHECK(usage->inodes == 3 * kDepth + 2);
    CHECK(usage->bytes >= kMiB);
}

TEST_CASE("tree usage: directories that go while they are walked are no error") {
    const Tree tree;
    std::atomic<bool> done = false;
    std::thread guest([&] {
        while (!done) {
            for (int i = 0; i < 64; i++) {
                mkdirat(tree.fd.get(), std::to_string(i).c_str(), 0755);
            }
            for (int i = 0; i < 64; i++) {
                unlinkat(tree.fd.get(), std::to_string(i).c_str(), AT_REMOVEDIR);
            }
        }
    });
    int failed = 0;
    for (int i = 0; i < 300; i++) {
        failed += !tree_usage(tree.fd.get()).ok();
    }
    done = true;
    guest.join();
    CHECK(failed == 0);
}

TEST_CASE("remove tree: more directories in each other than there may be descriptors") {
    const Tree outside;
    write_file(outside.fd.get(), "kept", 1);
    const Tree tree;
    constexpr int kDepth = 20000;
    ScopedFd at(openat(tree.fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int i = 0; i < kDepth; i++) {
        if (i % 1000 == 0) {
            write_file(at.get(), "beside", 1);
            make_directory(at.get(), "empty");
            REQUIRE(symlinkat(outside.path.c_str(), at.get(), "elsewhere") == 0);
        }
        at = make_directory(at.get(), "d");
    }
    at.reset();
    const FewDescriptors few(100);
    const auto usage = tree_usage(tree.fd.get());
    const auto removed = remove_tree(tree.path);
    CHECK((usage.ok() && usage->inodes == kDepth + 1 + 3 * kDepth / 1000));
    CHECK(removed.ok());
    CHECK(access(tree.path.c_str(), F_OK) != 0);
    CHECK(access((outside.path + "/kept").c_str(), F_OK) == 0);
}
