// stat(2), statx(2), the *at calls, openat2(2), chmod(2), chown(2), utimensat(2), access(2),
// statfs(2).

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct stat stat_of(const std::string& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) {
        fatal("lstat " + path + ": " + errno_name(errno));
    }
    return st;
}

TEST_CASE("stat: size, blocks, type, owner and links of a regular file") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(5000, 'x'), 0640);
    Fenced<struct stat> st;
    REQUIRE_THAT(::stat(path.c_str(), st.get()), succeeds());
    CHECK(st.intact());
    CHECK(st->st_size == 5000);
    CHECK(st->st_mode == (S_IFREG | 0640));
    CHECK(st->st_nlink == 1);
    CHECK(st->st_uid == ::geteuid());
    CHECK(st->st_blksize > 0);
    CHECK(st->st_ino != 0);
}

TEST_CASE("lstat: looks at the link, stat at its target") {
    TempDir dir;
    dir.file("f", "12345");
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    CHECK(S_ISLNK(stat_of(dir / "link").st_mode));
    CHECK(stat_of(dir / "link").st_size == 1);
    struct stat st;
    REQUIRE_THAT(::stat((dir / "link").c_str(), &st), succeeds());
    CHECK(st.st_size == 5);
    // A slash behind the link's name means what it points to.
    CHECK_THAT(::lstat((dir / "link/").c_str(), &st), fails_with(ENOTDIR));
}

TEST_CASE("stat: bad pointers fail with EFAULT") {
    struct stat st;
    CHECK_THAT(::syscall(SYS_stat, "/", bad<struct stat>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_stat, bad<char>(), &st), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_fstat, 1, bad<struct stat>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_stat, "/", read_only_page()), fails_with(EFAULT));
}

TEST_CASE("fstatat: relative, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, and errors") {
    TempDir dir;
    dir.file("f", "123");
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    const FileDescriptor fd = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    const FileDescriptor file = open_file(dir / "f", O_RDONLY);
    struct stat st;
    REQUIRE_THAT(::fstatat(fd.get(), "link", &st, 0), succeeds());
    CHECK(st.st_size == 3);
    REQUIRE_THAT(::fstatat(fd.get(), "link", &st, AT_SYMLINK_NOFOLLOW), succeeds());
    CHECK(S_ISLNK(st.st_mode));
    REQUIRE_THAT(::fstatat(file.get(), "", &st, AT_EMPTY_PATH), succeeds());
    CHECK(st.st_size == 3);
    CHECK_THAT(::fstatat(fd.get(), "", &st, 0), fails_with(ENOENT));
    CHECK_THAT(::fstatat(file.get(), "f", &st, 0), fails_with(ENOTDIR));
    CHECK_THAT(::fstatat(777, "f", &st, 0), fails_with(EBADF));
    CHECK_THAT(::fstatat(777, (dir / "f").c_str(), &st, 0), succeeds());
    CHECK_THAT(::fstatat(fd.get(), "f", &st, 0x8000000), fails_with(EINVAL));
}

TEST_CASE("statx: basic fields agree with stat, the mask says what is there") {
    TempDir dir;
    const std::string path = dir.file("f", "123456", 0604);
    Fenced<struct statx> x;
    REQUIRE_THAT(::statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS, x.get()), succeeds());
    CHECK(x.intact());
    const struct stat st = stat_of(path);
    CHECK((x->stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    CHECK(x->stx_size == 6);
    CHECK(x->stx_mode == st.st_mode);
    CHECK(x->stx_ino == st.st_ino);
    CHECK(x->stx_nlink == 1);
    CHECK(x->stx_mtime.tv_sec == st.st_mtim.tv_sec);
    CHECK(x->stx_mtime.tv_nsec == static_cast<unsigned>(st.st_mtim.tv_nsec));
    CHECK(makedev(x->stx_dev_major, x->stx_dev_minor) == st.st_dev);
}

TEST_CASE("statx: AT_EMPTY_PATH on a descriptor, wrong masks and flags") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "12"), O_RDONLY);
    struct statx x;
    CHECK_THAT(::statx(fd.get(), "", AT_EMPTY_PATH, STATX_SIZE, &x), succeeds());
    CHECK(x.stx_size == 2);
    CHECK_THAT(::statx(fd.get(), "", 0, STATX_SIZE, &x), fails_with(ENOENT));
    CHECK_THAT(::statx(fd.get(), "", AT_EMPTY_PATH, 0x80000000U, &x), fails_with(EINVAL));
    // By path: newer kernels do not look at the other flags of an empty path.
    CHECK_THAT(::statx(AT_FDCWD, (dir / "f").c_str(), 0x10000000, STATX_SIZE, &x),
               fails_with(EINVAL));
    CHECK_THAT(::statx(fd.get(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC,
                       STATX_SIZE, &x),
               fails_with(EINVAL));
    CHECK_THAT(::statx(fd.get(), "", AT_EMPTY_PATH, STATX_SIZE, bad<struct statx>()),
               fails_with(EFAULT));
}

TEST_CASE("openat: absolute paths ignore the descriptor, relative ones need a directory") {
    TempDir dir;
    const std::string path = dir.file("f", "x");
    const FileDescriptor file = open_file(path, O_RDONLY);
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    CHECK_THAT(::openat(-5, path.c_str(), O_RDONLY), succeeds());
    CHECK_THAT(::openat(-5, "f", O_RDONLY), fails_with(EBADF));
    CHECK_THAT(::openat(file.get(), "f", O_RDONLY), fails_with(ENOTDIR));
    CHECK_THAT(::openat(directory.get(), "f", O_RDONLY), succeeds());
    CHECK_THAT(::openat(directory.get(), "./f", O_RDONLY), succeeds());
}

TEST_CASE("openat2: RESOLVE flags confine the walk") {
    TempDir dir;
    REQUIRE_THAT(::mkdir((dir / "in").c_str(), 0755), succeeds());
    dir.file("out", "outside");
    dir.file("in/f", "inside");
    REQUIRE_THAT(::symlink("../out", (dir / "in/up").c_str()), succeeds());
    REQUIRE_THAT(::symlink("/f", (dir / "in/absolute").c_str()), succeeds());
    const FileDescriptor fd = open_file(dir / "in", O_RDONLY | O_DIRECTORY);
    const auto open2 = [&](const char* path, uint64_t resolve) {
        open_how how{};
        how.flags = O_RDONLY | O_CLOEXEC;
        how.resolve = resolve;
        return ::syscall(SYS_openat2, fd.get(), path, &how, sizeof how);
    };
    const long first = open2("f", 0);
    SKIP_UNLESS(first >= 0 || errno != ENOSYS, "no openat2");
    CHECK_THAT(open2("f", RESOLVE_BENEATH), succeeds());
    CHECK_THAT(open2("../out", RESOLVE_BENEATH), fails_with(EXDEV));
    CHECK_THAT(open2("up", RESOLVE_BENEATH), fails_with(EXDEV));
    CHECK_THAT(open2("/f", RESOLVE_BENEATH), fails_with(EXDEV));
    CHECK_THAT(open2("absolute", RESOLVE_IN_ROOT), succeeds());
    CHECK_THAT(open2("../../../f", RESOLVE_IN_ROOT), succeeds());
    CHECK_THAT(open2("up", RESOLVE_NO_SYMLINKS), fails_with(ELOOP));
    CHECK_THAT(open2("f", 1ULL << 40), fails_with(EINVAL));
    CHECK_THAT(open2("f", RESOLVE_BENEATH | RESOLVE_IN_ROOT), fails_with(EINVAL));
    open_how how{};
    how.flags = O_RDONLY;
    how.mode = 0600;  // without O_CREAT
    CHECK_THAT(::syscall(SYS_openat2, fd.get(), "f", &how, sizeof how), fails_with(EINVAL));
    how.mode = 0;
    CHECK_THAT(::syscall(SYS_openat2, fd.get(), "f", &how, 8), fails_with(EINVAL));
    char larger[sizeof how + 8] = {};
    std::memcpy(larger, &how, sizeof how);
    CHECK_THAT(::syscall(SYS_openat2, fd.get(), "f", larger, sizeof larger), succeeds());
    larger[sizeof how] = 1;
    CHECK_THAT(::syscall(SYS_openat2, fd.get(), "f", larger, sizeof larger), fails_with(E2BIG));
}

TEST_CASE("unlinkat, mkdirat, symlinkat, linkat, renameat: relative to descriptors") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    CHECK_THAT(::mkdirat(fd.get(), "d", 0700), succeeds());
    CHECK_THAT(::symlinkat("target", fd.get(), "link"), succeeds());
    dir.file("f", "x");
    CHECK_THAT(::linkat(fd.get(), "f", fd.get(), "d/g", 0), succeeds());
    CHECK_THAT(::linkat(fd.get(), "link", fd.get(), "link2", 0), succeeds());
    CHECK(S_ISLNK(stat_of(dir / "link2").st_mode));
    CHECK_THAT(::renameat(fd.get(), "d/g", fd.get(), "h"), succeeds());
    CHECK_THAT(::unlinkat(fd.get(), "d", 0), fails_with(EISDIR));
    CHECK_THAT(::unlinkat(fd.get(), "f", AT_REMOVEDIR), fails_with(ENOTDIR));
    CHECK_THAT(::unlinkat(fd.get(), "d", 0x1234000), fails_with(EINVAL));
    CHECK_THAT(::unlinkat(fd.get(), "d", AT_REMOVEDIR), succeeds());
    CHECK_THAT(::mkfifoat(fd.get(), "fifo", 0600), succeeds());
}

TEST_CASE("chmod: all twelve bits, changes ctime, follows links") {
    TempDir dir;
    const std::string path = dir.file("f");
    REQUIRE_THAT(::chmod(path.c_str(), 07777), succeeds());
    CHECK((stat_of(path).st_mode & 07777) == 07777);
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    REQUIRE_THAT(::chmod((dir / "link").c_str(), 0600), succeeds());
    CHECK((stat_of(path).st_mode & 07777) == 0600);
    const FileDescriptor fd = open_file(path, O_RDONLY);
    CHECK_THAT(::fchmod(fd.get(), 0400), succeeds());
    CHECK((stat_of(path).st_mode & 07777) == 0400);
    CHECK_THAT(::chmod((dir / "missing").c_str(), 0), fails_with(ENOENT));
}

TEST_CASE("chown: sets ids, minus one leaves them, clears set-user-id") {
    TempDir dir;
    const std::string path = dir.file("f");
    REQUIRE_THAT(::chmod(path.c_str(), 06755), succeeds());
    REQUIRE_THAT(::chown(path.c_str(), 1234, 5678), succeeds());
    CHECK(stat_of(path).st_uid == 1234);
    CHECK(stat_of(path).st_gid == 5678);
    CHECK((stat_of(path).st_mode & 06000) == 0);
    REQUIRE_THAT(::chown(path.c_str(), static_cast<uid_t>(-1), 9), succeeds());
    CHECK(stat_of(path).st_uid == 1234);
    CHECK(stat_of(path).st_gid == 9);
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    REQUIRE_THAT(::lchown((dir / "link").c_str(), 42, 42), succeeds());
    CHECK(stat_of(path).st_uid == 1234);
    CHECK(stat_of(dir / "link").st_uid == 42);
}

TEST_CASE("utimensat: exact nanoseconds, now, omit and wrong values") {
    TempDir dir;
    const std::string path = dir.file("f");
    const timespec exact[2] = {{1'000'000'000, 123'456'789}, {1'100'000'000, 987'654'321}};
    REQUIRE_THAT(::utimensat(AT_FDCWD, path.c_str(), exact, 0), succeeds());
    CHECK(stat_of(path).st_atim.tv_sec == 1'000'000'000);
    CHECK(stat_of(path).st_atim.tv_nsec == 123'456'789);
    CHECK(stat_of(path).st_mtim.tv_nsec == 987'654'321);
    const timespec omit[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    REQUIRE_THAT(::utimensat(AT_FDCWD, path.c_str(), omit, 0), succeeds());
    CHECK(stat_of(path).st_atim.tv_sec == 1'000'000'000);
    CHECK(stat_of(path).st_mtim.tv_sec > 1'500'000'000);
    const timespec wrong[2] = {{0, 1'000'000'000}, {0, 0}};
    CHECK_THAT(::utimensat(AT_FDCWD, path.c_str(), wrong, 0), fails_with(EINVAL));
    CHECK_THAT(::utimensat(AT_FDCWD, path.c_str(), bad<timespec>(), 0), fails_with(EFAULT));
    CHECK_THAT(::utimensat(AT_FDCWD, (dir / "missing").c_str(), nullptr, 0), fails_with(ENOENT));
    const FileDescriptor fd = open_file(path, O_RDONLY);
    CHECK_THAT(::futimens(fd.get(), exact), succeeds());
    CHECK(stat_of(path).st_mtim.tv_sec == 1'100'000'000);
}

TEST_CASE("times: writing changes mtime and ctime, chmod only ctime") {
    TempDir dir;
    const std::string path = dir.file("f", "x");
    const timespec old[2] = {{1000, 0}, {1000, 0}};
    REQUIRE_THAT(::utimensat(AT_FDCWD, path.c_str(), old, 0), succeeds());
    REQUIRE_THAT(::chmod(path.c_str(), 0611), succeeds());
    CHECK(stat_of(path).st_mtim.tv_sec == 1000);
    CHECK(stat_of(path).st_ctim.tv_sec > 1'500'000'000);
    const FileDescriptor fd = open_file(path, O_WRONLY);
    REQUIRE(write_all(fd.get(), "y"));
    CHECK(stat_of(path).st_mtim.tv_sec > 1'500'000'000);
}

TEST_CASE("times: a new entry changes the directory's mtime") {
    TempDir dir;
    const timespec old[2] = {{1000, 0}, {1000, 0}};
    REQUIRE_THAT(::utimensat(AT_FDCWD, dir.path().c_str(), old, 0), succeeds());
    dir.file("new");
    CHECK(stat_of(dir.path()).st_mtim.tv_sec > 1'500'000'000);
}

TEST_CASE("access: root may read and write all, but execute only what somebody may") {
    TempDir dir;
    const std::string path = dir.file("f", "", 0);
    CHECK_THAT(::access(path.c_str(), R_OK | W_OK), succeeds());
    CHECK_THAT(::access(path.c_str(), X_OK), fails_with(EACCES));
    REQUIRE_THAT(::chmod(path.c_str(), 0001), succeeds());
    CHECK_THAT(::access(path.c_str(), X_OK), succeeds());
    CHECK_THAT(::access(path.c_str(), 0x10), fails_with(EINVAL));
    CHECK_THAT(::access((dir / "missing").c_str(), F_OK), fails_with(ENOENT));
}

TEST_CASE("faccessat2: AT_EACCESS and AT_SYMLINK_NOFOLLOW") {
    TempDir dir;
    REQUIRE_THAT(::symlink("missing", (dir / "link").c_str()), succeeds());
    const long found =
        ::syscall(SYS_faccessat2, AT_FDCWD, (dir / "link").c_str(), F_OK, AT_SYMLINK_NOFOLLOW);
    SKIP_UNLESS(found == 0 || errno != ENOSYS, "no faccessat2");
    CHECK(found == 0);
    CHECK_THAT(::syscall(SYS_faccessat2, AT_FDCWD, (dir / "link").c_str(), F_OK, 0),
               fails_with(ENOENT));
    CHECK_THAT(::syscall(SYS_faccessat2, AT_FDCWD, dir.path().c_str(), R_OK, AT_EACCESS),
               succeeds());
    CHECK_THAT(::syscall(SYS_faccessat2, AT_FDCWD, dir.path().c_str(), R_OK, 0x40000000),
               fails_with(EINVAL));
}

TEST_CASE("statfs: fills sizes and a name length; errors") {
    TempDir dir;
    Fenced<struct statfs> fs;
    REQUIRE_THAT(::statfs(dir.path().c_str(), fs.get()), succeeds());
    CHECK(fs.intact());
    CHECK(fs->f_bsize > 0);
    CHECK(fs->f_namelen == 255);
    CHECK(fs->f_bfree <= fs->f_blocks);
    const FileDescriptor fd = open_file(dir.path(), O_RDONLY);
    struct statfs other;
    REQUIRE_THAT(::fstatfs(fd.get(), &other), succeeds());
    CHECK(other.f_type == fs->f_type);
    CHECK_THAT(::statfs((dir / "missing").c_str(), &other), fails_with(ENOENT));
    CHECK_THAT(::statfs("/", bad<struct statfs>()), fails_with(EFAULT));
    REQUIRE_THAT(::statfs("/proc", &other), succeeds());
    CHECK(other.f_type == 0x9fa0);
}

TEST_CASE("name_to_handle_at: answers or refuses, but writes only what fits") {
    TempDir dir;
    FencedBuffer buffer(sizeof(file_handle));
    auto* handle = reinterpret_cast<file_handle*>(buffer.data());
    handle->handle_bytes = 0;
    int mount = 0;
    CHECK_THAT(::name_to_handle_at(AT_FDCWD, dir.path().c_str(), handle, &mount, 0),
               fails_with_any({EOVERFLOW, EOPNOTSUPP, ENOSYS, EPERM}));
    CHECK(buffer.intact());
}

}  // namespace
