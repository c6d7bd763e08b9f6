// mkdir(2), rmdir(2), rename(2), symlink(2), getdents64(2), chdir(2), getcwd(2).

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct Entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[1];
};

/// All names of a directory by getdents64 with a small fenced buffer.
std::set<std::string> names(const std::string& path, size_t buffer_size = 200) {
    const FileDescriptor fd = open_file(path, O_RDONLY | O_DIRECTORY);
    std::set<std::string> all;
    FencedBuffer buffer(buffer_size);
    for (;;) {
        const long n = ::syscall(SYS_getdents64, fd.get(), buffer.data(), buffer.size());
        CHECK(n >= 0);
        CHECK(buffer.intact());
        if (n <= 0) {
            return all;
        }
        for (long at = 0; at < n;) {
            const auto* entry = reinterpret_cast<const Entry*>(buffer.data() + at);
            CHECK(entry->length % 8 == 0);
            CHECK(all.insert(entry->name).second);
            at += entry->length;
        }
    }
}

TEST_CASE("mkdir: makes an empty directory with two links and the mode less the umask") {
    TempDir dir;
    const std::string path = dir / "d";
    const mode_t old = ::umask(022);
    REQUIRE_THAT(::mkdir(path.c_str(), 0777), succeeds());
    ::umask(old);
    struct stat st;
    REQUIRE_THAT(::stat(path.c_str(), &st), succeeds());
    CHECK(S_ISDIR(st.st_mode));
    CHECK((st.st_mode & 07777) == 0755);
    CHECK(names(path) == std::set<std::string>{".", ".."});
}

TEST_CASE("mkdir: errors") {
    TempDir dir;
    const std::string file = dir.file("f");
    CHECK_THAT(::mkdir(dir.path().c_str(), 0755), fails_with(EEXIST));
    CHECK_THAT(::mkdir(file.c_str(), 0755), fails_with(EEXIST));
    CHECK_THAT(::mkdir((dir / "a/b").c_str(), 0755), fails_with(ENOENT));
    CHECK_THAT(::mkdir((file + "/d").c_str(), 0755), fails_with(ENOTDIR));
    CHECK_THAT(::mkdir("/", 0755), fails_with(EEXIST));
    CHECK_THAT(::mkdir("", 0755), fails_with(ENOENT));
    CHECK_THAT(::mkdir(bad<char>(), 0755), fails_with(EFAULT));
    CHECK_THAT(::mkdir((dir / "slash/").c_str(), 0755), succeeds());
    REQUIRE_THAT(::symlink("nowhere", (dir / "dangling").c_str()), succeeds());
    CHECK_THAT(::mkdir((dir / "dangling").c_str(), 0755), fails_with(EEXIST));
}

TEST_CASE("rmdir: only empty directories, never dots") {
    TempDir dir;
    const std::string path = dir / "d";
    REQUIRE_THAT(::mkdir(path.c_str(), 0755), succeeds());
    dir.file("d/f");
    CHECK_THAT(::rmdir(path.c_str()), fails_with(ENOTEMPTY));
    REQUIRE_THAT(::unlink((path + "/f").c_str()), succeeds());
    CHECK_THAT(::rmdir((path + "/.").c_str()), fails_with(EINVAL));
    CHECK_THAT(::rmdir((path + "/..").c_str()), fails_with(ENOTEMPTY));
    CHECK_THAT(::unlink(path.c_str()), fails_with(EISDIR));
    CHECK_THAT(::rmdir(path.c_str()), succeeds());
    CHECK_THAT(::rmdir(path.c_str()), fails_with(ENOENT));
    CHECK_THAT(::rmdir(dir.file("f").c_str()), fails_with(ENOTDIR));
}

TEST_CASE("rmdir: a removed working directory has no entries and takes no new ones") {
    TempDir dir;
    in_child([&] {
        const std::string path = dir / "gone";
        CHILD_THAT(::mkdir(path.c_str(), 0755), succeeds());
        CHILD_THAT(::chdir(path.c_str()), succeeds());
        CHILD_THAT(::rmdir(path.c_str()), succeeds());
        CHILD_THAT(::open("f", O_CREAT | O_RDWR, 0600), fails_with(ENOENT));
        CHILD_THAT(::mkdir("d", 0755), fails_with(ENOENT));
        char buffer[4096];
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) == nullptr && errno == ENOENT);
        CHILD_THAT(::chdir(".."), succeeds());
    });
}

TEST_CASE("getdents64: finds all of five hundred names with a small buffer, types included") {
    TempDir dir;
    std::set<std::string> expected{".", ".."};
    for (int i = 0; i < 500; ++i) {
        expected.insert("file-" + std::to_string(i));
        dir.file("file-" + std::to_string(i));
    }
    CHECK(names(dir.path()) == expected);
    CHECK(names(dir.path(), 32768) == expected);
}

TEST_CASE("getdents64: d_type tells files, directories, links and fifos apart") {
    TempDir dir;
    dir.file("file");
    REQUIRE_THAT(::mkdir((dir / "dir").c_str(), 0755), succeeds());
    REQUIRE_THAT(::symlink("x", (dir / "link").c_str()), succeeds());
    REQUIRE_THAT(::mkfifo((dir / "fifo").c_str(), 0600), succeeds());
    int good = 0;
    DIR* stream = ::opendir(dir.path().c_str());
    REQUIRE(stream != nullptr);
    while (const dirent* entry = ::readdir(stream)) {
        const std::string name = entry->d_name;
        good += (name == "file" && entry->d_type == DT_REG) ||
                (name == "dir" && entry->d_type == DT_DIR) ||
                (name == "link" && entry->d_type == DT_LNK) ||
                (name == "fifo" && entry->d_type == DT_FIFO) ||
                (name == "." && entry->d_type == DT_DIR) ||
                (name == ".." && entry->d_type == DT_DIR);
    }
    ::closedir(stream);
    CHECK(good == 6);
}

TEST_CASE("getdents64: errors") {
    TempDir dir;
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    const FileDescriptor file = open_file(dir.file("f"), O_RDONLY);
    char buffer[1024];
    CHECK_THAT(::syscall(SYS_getdents64, file.get(), buffer, sizeof buffer), fails_with(ENOTDIR));
    CHECK_THAT(::syscall(SYS_getdents64, -1, buffer, sizeof buffer), fails_with(EBADF));
    CHECK_THAT(::syscall(SYS_getdents64, directory.get(), buffer, 8), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_getdents64, directory.get(), bad<char>(), 1024), fails_with(EFAULT));
}

TEST_CASE("getdents64: rewinding shows new entries") {
    TempDir dir;
    DIR* stream = ::opendir(dir.path().c_str());
    REQUIRE(stream != nullptr);
    int before = 0, after = 0;
    while (::readdir(stream) != nullptr) {
        ++before;
    }
    dir.file("new");
    ::rewinddir(stream);
    while (::readdir(stream) != nullptr) {
        ++after;
    }
    ::closedir(stream);
    CHECK(before == 2);
    CHECK(after == 3);
}

TEST_CASE("getdents64: deleting while reading loses none of the others") {
    TempDir dir;
    for (int i = 0; i < 300; ++i) {
        dir.file("f" + std::to_string(i));
    }
    DIR* stream = ::opendir(dir.path().c_str());
    REQUIRE(stream != nullptr);
    int removed = 0;
    while (const dirent* entry = ::readdir(stream)) {
        if (entry->d_name[0] == 'f') {
            removed += ::unlink((dir / entry->d_name).c_str()) == 0;
        }
    }
    ::closedir(stream);
    CHECK(removed == 300);
    CHECK(names(dir.path()).size() == 2);
}

TEST_CASE("rename: replaces files, keeps the inode") {
    TempDir dir;
    const std::string a = dir.file("a", "A"), b = dir.file("b", "B");
    struct stat before, after;
    REQUIRE_THAT(::stat(a.c_str(), &before), succeeds());
    CHECK_THAT(::rename(a.c_str(), b.c_str()), succeeds());
    REQUIRE_THAT(::stat(b.c_str(), &after), succeeds());
    CHECK(before.st_ino == after.st_ino);
    CHECK(read_file(b) == "A");
    CHECK_THAT(::access(a.c_str(), F_OK), fails_with(ENOENT));
}

TEST_CASE("rename: two links to one file stay both") {
    TempDir dir;
    const std::string a = dir.file("a", "A");
    REQUIRE_THAT(::link(a.c_str(), (dir / "b").c_str()), succeeds());
    CHECK_THAT(::rename(a.c_str(), (dir / "b").c_str()), succeeds());
    CHECK_THAT(::access(a.c_str(), F_OK), succeeds());
}

TEST_CASE("rename: directories move with their contents, onto empty ones only") {
    TempDir dir;
    for (const char* name : {"from", "empty", "full"}) {
        REQUIRE_THAT(::mkdir((dir / name).c_str(), 0755), succeeds());
    }
    dir.file("from/f", "inside");
    dir.file("full/g");
    CHECK_THAT(::rename((dir / "from").c_str(), (dir / "full").c_str()),
               fails_with_any({ENOTEMPTY, EEXIST}));
    CHECK_THAT(::rename((dir / "from").c_str(), (dir / "empty").c_str()), succeeds());
    CHECK(read_file(dir / "empty/f") == "inside");
}

TEST_CASE("rename: errors") {
    TempDir dir;
    const std::string file = dir.file("f");
    REQUIRE_THAT(::mkdir((dir / "d").c_str(), 0755), succeeds());
    REQUIRE_THAT(::mkdir((dir / "d/e").c_str(), 0755), succeeds());
    CHECK_THAT(::rename((dir / "missing").c_str(), (dir / "x").c_str()), fails_with(ENOENT));
    CHECK_THAT(::rename(file.c_str(), (dir / "d").c_str()), fails_with(EISDIR));
    CHECK_THAT(::rename((dir / "d").c_str(), file.c_str()), fails_with(ENOTDIR));
    CHECK_THAT(::rename((dir / "d").c_str(), (dir / "d/e/f").c_str()), fails_with(EINVAL));
    CHECK_THAT(::rename((dir / "d/.").c_str(), (dir / "x").c_str()), fails_with(EBUSY));
    CHECK_THAT(::rename(file.c_str(), (dir / "f/").c_str()), fails_with(ENOTDIR));
    CHECK_THAT(::rename(bad<char>(), file.c_str()), fails_with(EFAULT));
}

TEST_CASE("rename: RENAME_NOREPLACE and RENAME_EXCHANGE") {
    TempDir dir;
    const std::string a = dir.file("a", "A"), b = dir.file("b", "B");
    CHECK_THAT(::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_NOREPLACE),
               fails_with(EEXIST));
    CHECK_THAT(::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE), succeeds());
    CHECK(read_file(a) == "B");
    CHECK(read_file(b) == "A");
    CHECK_THAT(
        ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE | RENAME_NOREPLACE),
        fails_with(EINVAL));
    CHECK_THAT(::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, (dir / "c").c_str(), RENAME_NOREPLACE),
               succeeds());
    CHECK_THAT(::renameat2(AT_FDCWD, b.c_str(), AT_FDCWD, (dir / "x").c_str(), RENAME_EXCHANGE),
               fails_with(ENOENT));
}

TEST_CASE("rename: an open directory keeps working under its new name") {
    TempDir dir;
    REQUIRE_THAT(::mkdir((dir / "old").c_str(), 0755), succeeds());
    const FileDescriptor fd = open_file(dir / "old", O_RDONLY | O_DIRECTORY);
    REQUIRE_THAT(::rename((dir / "old").c_str(), (dir / "new").c_str()), succeeds());
    const FileDescriptor file(::openat(fd.get(), "f", O_CREAT | O_RDWR, 0600));
    CHECK(file.valid());
    CHECK_THAT(::access((dir / "new/f").c_str(), F_OK), succeeds());
}

TEST_CASE("symlink: readlink returns the target without a zero, cut to the buffer") {
    TempDir dir;
    const std::string link = dir / "link";
    REQUIRE_THAT(::symlink("some/target", link.c_str()), succeeds());
    FencedBuffer buffer(64), small(4);
    CHECK_THAT(::readlink(link.c_str(), buffer.data(), 64), succeeds_with(11));
    CHECK(std::memcmp(buffer.data(), "some/target", 11) == 0);
    CHECK(buffer.untouched_from(11));
    CHECK_THAT(::readlink(link.c_str(), small.data(), 4), succeeds_with(4));
    CHECK(small.intact());
    CHECK_THAT(::readlink(link.c_str(), buffer.data(), 0), fails_with(EINVAL));
    CHECK_THAT(::readlink(link.c_str(), bad<char>(), 64), fails_with(EFAULT));
    CHECK_THAT(::readlink(dir.path().c_str(), buffer.data(), 64), fails_with(EINVAL));
    CHECK_THAT(::symlink("", (dir / "empty").c_str()), fails_with(ENOENT));
    CHECK_THAT(::symlink("x", link.c_str()), fails_with(EEXIST));
    CHECK_THAT(::symlink(std::string(4096, 'x').c_str(), (dir / "long").c_str()),
               fails_with(ENAMETOOLONG));
}

TEST_CASE(
    "symlink: relative, absolute and nested targets resolve, dots through links go to the target's "
    "parent") {
    TempDir dir;
    REQUIRE_THAT(::mkdir((dir / "a").c_str(), 0755), succeeds());
    REQUIRE_THAT(::mkdir((dir / "a/b").c_str(), 0755), succeeds());
    dir.file("a/f", "parent");
    REQUIRE_THAT(::symlink("a/b", (dir / "link").c_str()), succeeds());
    CHECK(read_file(dir / "link/../f") == "parent");
    REQUIRE_THAT(::symlink((dir / "a").c_str(), (dir / "a/b/absolute").c_str()), succeeds());
    CHECK(read_file(dir / "link/absolute/b/absolute/f") == "parent");
}

TEST_CASE("path: repeated slashes, dots and dots above the root") {
    TempDir dir;
    dir.file("f", "x");
    CHECK(read_file(dir / "/.//./f") == "x");
    CHECK(read_file("/../../.." + dir.path() + "/f") == "x");
    CHECK_THAT(::open((dir / "f/.").c_str(), O_RDONLY), fails_with(ENOTDIR));
    CHECK_THAT(::open((dir / "f/..").c_str(), O_RDONLY), fails_with(ENOTDIR));
}

TEST_CASE("chdir: getcwd follows, fchdir too, renames are seen") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::mkdir((dir / "one").c_str(), 0755), succeeds());
        CHILD_THAT(::chdir((dir / "one").c_str()), succeeds());
        char buffer[4096];
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(std::string(buffer) == dir / "one");
        CHILD_THAT(::rename((dir / "one").c_str(), (dir / "two").c_str()), succeeds());
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(std::string(buffer) == dir / "two");
        const FileDescriptor parent = open_file("..", O_RDONLY | O_DIRECTORY);
        CHILD_THAT(::fchdir(parent.get()), succeeds());
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(std::string(buffer) == dir.path());
        CHILD_THAT(::chdir((dir / "missing").c_str()), fails_with(ENOENT));
        CHILD_THAT(::chdir(dir.file("f").c_str()), fails_with(ENOTDIR));
        CHILD_THAT(::fchdir(1000), fails_with(EBADF));
    });
}

TEST_CASE("getcwd: the buffer must hold the path and its zero") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::chdir(dir.path().c_str()), succeeds());
        const size_t size = dir.path().size() + 1;
        FencedBuffer exact(size), small(size - 1);
        CHILD_THAT(::syscall(SYS_getcwd, exact.data(), size),
                   succeeds_with(static_cast<long>(size)));
        CHILD_CHECK(dir.path() == exact.data());
        CHILD_THAT(::syscall(SYS_getcwd, small.data(), size - 1), fails_with(ERANGE));
        CHILD_THAT(::syscall(SYS_getcwd, bad<char>(), 4096), fails_with(EFAULT));
        CHILD_CHECK(exact.intact() && small.intact());
    });
}

TEST_CASE("getcwd: a directory deeper than a path can be long is said to be so, not the buffer") {
    TempDir dir;
    const std::string name(200, 'd');
    in_child([&] {
        CHILD_THAT(::chdir(dir.path().c_str()), succeeds());
        for (int i = 0; i < 21; i++) {
            CHILD_THAT(::mkdir(name.c_str(), 0755), succeeds());
            CHILD_THAT(::chdir(name.c_str()), succeeds());
        }
        std::string buffer(3 * PATH_MAX, '\0');
        for (const size_t size : {size_t{100}, size_t{PATH_MAX}, buffer.size()}) {
            CHILD_THAT(::syscall(SYS_getcwd, buffer.data(), size), fails_with(ENAMETOOLONG));
        }
        for (int i = 0; i < 21; i++) {
            CHILD_THAT(::chdir(".."), succeeds());
            CHILD_THAT(::rmdir(name.c_str()), succeeds());
        }
        CHILD_THAT(::syscall(SYS_getcwd, buffer.data(), buffer.size()),
                   succeeds_with(static_cast<long>(dir.path().size() + 1)));
    });
}

TEST_CASE("chroot: the new root hides the old one, dots do not lead out") {
    TempDir dir;
    dir.file("inside", "jail");
    in_child([&] {
        CHILD_THAT(::chroot(dir.path().c_str()), succeeds());
        CHILD_THAT(::chdir("/"), succeeds());
        CHILD_CHECK(read_file("/inside") == "jail");
        CHILD_CHECK(read_file("/../../inside") == "jail");
        char buffer[64];
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(std::string(buffer) == "/");
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::chroot("/"), fails_with(EPERM));
    });
}

TEST_CASE("mknod: fifos, sockets and regular files; directories are refused") {
    TempDir dir;
    struct stat st;
    CHECK_THAT(::mknod((dir / "fifo").c_str(), S_IFIFO | 0600, 0), succeeds());
    CHECK_THAT(::mknod((dir / "file").c_str(), S_IFREG | 0600, 0), succeeds());
    CHECK_THAT(::mknod((dir / "zero").c_str(), 0600, 0), succeeds());
    CHECK_THAT(::mknod((dir / "socket").c_str(), S_IFSOCK | 0600, 0), succeeds());
    REQUIRE_THAT(::stat((dir / "fifo").c_str(), &st), succeeds());
    CHECK(S_ISFIFO(st.st_mode));
    REQUIRE_THAT(::stat((dir / "zero").c_str(), &st), succeeds());
    CHECK(S_ISREG(st.st_mode));
    CHECK_THAT(::mknod((dir / "d").c_str(), S_IFDIR | 0600, 0), fails_with(EPERM));
    CHECK_THAT(::mknod((dir / "x").c_str(), 0170000 | 0600, 0), fails_with(EINVAL));
    CHECK_THAT(::mknod((dir / "file").c_str(), S_IFREG | 0600, 0), fails_with(EEXIST));
}

TEST_CASE("dir: a hundred levels deep and back") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::chdir(dir.path().c_str()), succeeds());
        std::string expected = dir.path();
        for (int i = 0; i < 100; ++i) {
            CHILD_THAT(::mkdir("deeper", 0755), succeeds());
            CHILD_THAT(::chdir("deeper"), succeeds());
            expected += "/deeper";
        }
        char buffer[4096];
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(expected == buffer);
        std::string up;
        for (int i = 0; i < 100; ++i) {
            up += "../";
        }
        CHILD_THAT(::chdir(up.c_str()), succeeds());
        CHILD_CHECK(::getcwd(buffer, sizeof buffer) != nullptr);
        CHILD_CHECK(dir.path() == buffer);
    });
}

}  // namespace
