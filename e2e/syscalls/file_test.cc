// open(2), read(2), write(2), lseek(2), truncate(2), fallocate(2), dup(2), fcntl(2), link(2),
// unlink(2).

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

off_t size_of(const std::string& path) {
    struct stat st;
    return ::stat(path.c_str(), &st) == 0 ? st.st_size : -1;
}

TEST_CASE("open: creates with the mode less the umask") {
    TempDir dir;
    in_child([&] {
        ::umask(027);
        const FileDescriptor fd(::open((dir / "f").c_str(), O_CREAT | O_RDWR, 0777));
        struct stat st;
        CHILD_THAT(::fstat(fd.get(), &st), succeeds());
        CHILD_CHECK((st.st_mode & 07777) == 0750);
        CHILD_CHECK(S_ISREG(st.st_mode));
        CHILD_CHECK(st.st_nlink == 1);
    });
}

TEST_CASE("open: takes the lowest free descriptor") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor a = open_file(path, O_RDONLY);
    FileDescriptor b = open_file(path, O_RDONLY);
    const FileDescriptor c = open_file(path, O_RDONLY);
    const int freed = b.get();
    b.reset();
    b = open_file(path, O_RDONLY);
    CHECK(b.get() == freed);
    CHECK(a.get() < c.get());
}

TEST_CASE("open: O_EXCL refuses an existing name, even a dangling link") {
    TempDir dir;
    const std::string path = dir.file("f");
    CHECK_THAT(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600), fails_with(EEXIST));
    REQUIRE_THAT(::symlink("nowhere", (dir / "dangling").c_str()), succeeds());
    CHECK_THAT(::open((dir / "dangling").c_str(), O_CREAT | O_EXCL | O_RDWR, 0600),
               fails_with(EEXIST));
    CHECK_THAT(::open((dir / "new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0600), succeeds());
}

TEST_CASE("open: O_CREAT through a dangling link makes the link's target") {
    TempDir dir;
    REQUIRE_THAT(::symlink("target", (dir / "link").c_str()), succeeds());
    const FileDescriptor fd(::open((dir / "link").c_str(), O_CREAT | O_WRONLY, 0600));
    CHECK(fd.valid());
    CHECK(size_of(dir / "target") == 0);
}

TEST_CASE("open: O_TRUNC empties the file") {
    TempDir dir;
    const std::string path = dir.file("f", "contents");
    const FileDescriptor fd = open_file(path, O_WRONLY | O_TRUNC);
    CHECK(size_of(path) == 0);
}

TEST_CASE("open: errors of the path") {
    TempDir dir;
    const std::string file = dir.file("f");
    CHECK_THAT(::open((dir / "missing").c_str(), O_RDONLY), fails_with(ENOENT));
    CHECK_THAT(::open((dir / "missing/f").c_str(), O_CREAT | O_RDWR, 0600), fails_with(ENOENT));
    CHECK_THAT(::open((file + "/f").c_str(), O_RDONLY), fails_with(ENOTDIR));
    CHECK_THAT(::open((file + "/").c_str(), O_RDONLY), fails_with(ENOTDIR));
    CHECK_THAT(::open((dir / "new/").c_str(), O_CREAT | O_RDWR, 0600), fails_with(EISDIR));
    CHECK_THAT(::open("", O_RDONLY), fails_with(ENOENT));
    CHECK_THAT(::open(dir.path().c_str(), O_WRONLY), fails_with(EISDIR));
    CHECK_THAT(::open(dir.path().c_str(), O_RDONLY | O_CREAT, 0600), fails_with(EISDIR));
    CHECK_THAT(::open(file.c_str(), O_RDONLY | O_DIRECTORY), fails_with(ENOTDIR));
    CHECK_THAT(::open((dir / std::string(256, 'n')).c_str(), O_CREAT | O_RDWR, 0600),
               fails_with(ENAMETOOLONG));
    CHECK_THAT(::open(("/" + std::string(PATH_MAX, 'n')).c_str(), O_RDONLY),
               fails_with(ENAMETOOLONG));
    CHECK_THAT(::open(bad<char>(), O_RDONLY), fails_with(EFAULT));
    CHECK_THAT(::open((dir / std::string(255, 'n')).c_str(), O_CREAT | O_RDWR, 0600), succeeds());
}

TEST_CASE("open: symbolic links in a circle fail with ELOOP, O_NOFOLLOW refuses the last one") {
    TempDir dir;
    REQUIRE_THAT(::symlink("b", (dir / "a").c_str()), succeeds());
    REQUIRE_THAT(::symlink("a", (dir / "b").c_str()), succeeds());
    CHECK_THAT(::open((dir / "a").c_str(), O_RDONLY), fails_with(ELOOP));
    dir.file("f", "x");
    REQUIRE_THAT(::symlink("f", (dir / "good").c_str()), succeeds());
    CHECK_THAT(::open((dir / "good").c_str(), O_RDONLY | O_NOFOLLOW), fails_with(ELOOP));
    CHECK_THAT(::open((dir / "good").c_str(), O_RDONLY), succeeds());
}

TEST_CASE("open: forty links in a chain are followed, forty-one are not") {
    TempDir dir;
    dir.file("0", "end");
    for (int i = 1; i <= 41; ++i) {
        REQUIRE_THAT(::symlink(std::to_string(i - 1).c_str(), (dir / std::to_string(i)).c_str()),
                     succeeds());
    }
    CHECK(read_file(dir / "40") == "end");
    CHECK_THAT(::open((dir / "41").c_str(), O_RDONLY), fails_with(ELOOP));
}

TEST_CASE("open: O_PATH descriptors name a file but do not read it") {
    TempDir dir;
    const std::string path = dir.file("f", "x");
    const FileDescriptor fd = open_file(path, O_PATH);
    char c;
    CHECK_THAT(::read(fd.get(), &c, 1), fails_with(EBADF));
    CHECK_THAT(::fchmod(fd.get(), 0600), fails_with(EBADF));
    struct stat st;
    CHECK_THAT(::fstat(fd.get(), &st), succeeds());
    CHECK(read_file("/proc/self/fd/" + std::to_string(fd.get())) == "x");
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    const FileDescriptor link = open_file(dir / "link", O_PATH | O_NOFOLLOW);
    REQUIRE_THAT(::fstat(link.get(), &st), succeeds());
    CHECK(S_ISLNK(st.st_mode));
    char target[8];
    CHECK_THAT(::readlinkat(link.get(), "", target, sizeof target), succeeds_with(1));
}

TEST_CASE("open: O_TMPFILE has no name until it is linked") {
    TempDir dir;
    const FileDescriptor fd(::open(dir.path().c_str(), O_TMPFILE | O_RDWR, 0600));
    SKIP_UNLESS(fd.valid() || (errno != EOPNOTSUPP && errno != EISDIR), "no O_TMPFILE here");
    struct stat st;
    REQUIRE_THAT(::fstat(fd.get(), &st), succeeds());
    CHECK(st.st_nlink == 0);
    REQUIRE(write_all(fd.get(), "named later"));
    const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
    CHECK_THAT(
        ::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, (dir / "name").c_str(), AT_SYMLINK_FOLLOW),
        succeeds());
    CHECK(read_file(dir / "name") == "named later");
    CHECK_THAT(::open(dir.path().c_str(), O_TMPFILE | O_RDONLY, 0600), fails_with(EINVAL));
}

TEST_CASE("read: at the end is zero, of zero bytes is zero, into a bad buffer is EFAULT") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "abc"), O_RDONLY);
    FencedBuffer buffer(64);
    CHECK_THAT(::read(fd.get(), buffer.data(), 0), succeeds_with(0));
    CHECK_THAT(::read(fd.get(), bad<char>(), 3), fails_with(EFAULT));
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_CUR), succeeds_with(0));
    CHECK_THAT(::read(fd.get(), buffer.data(), 64), succeeds_with(3));
    CHECK(buffer.untouched_from(3));
    CHECK_THAT(::read(fd.get(), buffer.data(), 64), succeeds_with(0));
    CHECK(buffer.intact());
}

TEST_CASE("read: directories and write-only descriptors refuse") {
    TempDir dir;
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY);
    const FileDescriptor writer = open_file(dir.file("f", "x"), O_WRONLY);
    char c;
    CHECK_THAT(::read(directory.get(), &c, 1), fails_with(EISDIR));
    CHECK_THAT(::read(writer.get(), &c, 1), fails_with(EBADF));
    CHECK_THAT(::read(-1, &c, 1), fails_with(EBADF));
    CHECK_THAT(::read(100'000, &c, 1), fails_with(EBADF));
}

TEST_CASE("read: a buffer that is only partly there gets what fits or EFAULT, never more") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", std::string(8192, 'd')), O_RDONLY);
    FencedBuffer buffer(100);
    const ssize_t n = ::read(fd.get(), buffer.data(), 4096);  // the fence begins after 100
    CHECK((n == -1 || (n >= 0 && n <= 100)));
    CHECK(buffer.intact());
}

TEST_CASE("write: extends the file, behind the end leaves a hole of zeroes") {
    TempDir dir;
    const std::string path = dir.file("f", "abc");
    const FileDescriptor fd = open_file(path, O_RDWR);
    CHECK_THAT(::lseek(fd.get(), 10, SEEK_SET), succeeds_with(10));
    CHECK_THAT(::write(fd.get(), "z", 1), succeeds_with(1));
    CHECK(read_file(path) == std::string("abc\0\0\0\0\0\0\0z", 11));
}

TEST_CASE("write: O_APPEND writes at the end whatever the offset says") {
    TempDir dir;
    const std::string path = dir.file("f", "start");
    const FileDescriptor a = open_file(path, O_WRONLY | O_APPEND);
    const FileDescriptor b = open_file(path, O_WRONLY | O_APPEND);
    REQUIRE(write_all(a.get(), "-a"));
    REQUIRE(write_all(b.get(), "-b"));
    REQUIRE_THAT(::lseek(a.get(), 0, SEEK_SET), succeeds());
    REQUIRE(write_all(a.get(), "-c"));
    CHECK(read_file(path) == "start-a-b-c");
    CHECK_THAT(::lseek(a.get(), 0, SEEK_CUR), succeeds_with(11));
}

TEST_CASE("write: appends of two processes never overwrite each other") {
    TempDir dir;
    const std::string path = dir.file("f");
    const auto appender = [&](char letter) {
        return [&path, letter] {
            const FileDescriptor fd = open_file(path, O_WRONLY | O_APPEND);
            const std::string line(100, letter);
            for (int i = 0; i < 200; ++i) {
                CHILD_THAT(::write(fd.get(), line.data(), line.size()), succeeds_with(100));
            }
        };
    };
    Child a(appender('a')), b(appender('b'));
    CHECK(a.wait() == exited(0));
    CHECK(b.wait() == exited(0));
    CHECK(size_of(path) == 40'000);
}

TEST_CASE("pread and pwrite: leave the offset alone, negative offsets fail") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDWR);
    char buffer[4];
    CHECK_THAT(::pread(fd.get(), buffer, 4, 3), succeeds_with(4));
    CHECK(std::memcmp(buffer, "3456", 4) == 0);
    CHECK_THAT(::pwrite(fd.get(), "XX", 2, 8), succeeds_with(2));
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_CUR), succeeds_with(0));
    CHECK_THAT(::pread(fd.get(), buffer, 4, -1), fails_with(EINVAL));
    CHECK_THAT(::pwrite(fd.get(), buffer, 4, LONG_MIN), fails_with(EINVAL));
    CHECK_THAT(::pread(fd.get(), buffer, 4, 1000), succeeds_with(0));
    CHECK_THAT(::pread(fd.get(), buffer, 4, LONG_MAX - 2), fails_with_any({EINVAL, EOVERFLOW}));
}

TEST_CASE("readv and writev: counts and lengths are checked") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDWR);
    char a[3], b[16];
    iovec v[] = {{a, 3}, {b, 16}};
    CHECK_THAT(::readv(fd.get(), v, 2), succeeds_with(10));
    CHECK(std::memcmp(b, "3456789", 7) == 0);
    CHECK_THAT(::readv(fd.get(), v, 0), succeeds_with(0));
    CHECK_THAT(::syscall(SYS_readv, fd.get(), v, 1025), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_readv, fd.get(), v, -1L), fails_with(EINVAL));
    CHECK_THAT(::readv(fd.get(), bad<iovec>(), 1), fails_with(EFAULT));
    v[0].iov_len = static_cast<size_t>(-1);
    CHECK_THAT(::writev(fd.get(), v, 2), fails_with(EINVAL));
    iovec w[] = {{const_cast<char*>("AB"), 2}, {const_cast<char*>("CD"), 2}};
    CHECK_THAT(::pwritev(fd.get(), w, 2, 1), succeeds_with(4));
    iovec r[] = {{b, 6}};
    CHECK_THAT(::preadv(fd.get(), r, 1, 0), succeeds_with(6));
    CHECK(std::memcmp(b, "0ABCD5", 6) == 0);
    CHECK_THAT(::pwritev2(fd.get(), w, 2, -1, RWF_APPEND), succeeds_with(4));
    CHECK_THAT(::preadv2(fd.get(), r, 1, 0, 0x4000), fails_with(EOPNOTSUPP));
}

TEST_CASE("lseek: all origins, limits, data and holes") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDWR);
    CHECK_THAT(::lseek(fd.get(), 4, SEEK_SET), succeeds_with(4));
    CHECK_THAT(::lseek(fd.get(), 2, SEEK_CUR), succeeds_with(6));
    CHECK_THAT(::lseek(fd.get(), -1, SEEK_END), succeeds_with(9));
    CHECK_THAT(::lseek(fd.get(), 100, SEEK_END), succeeds_with(110));
    CHECK_THAT(::lseek(fd.get(), -200, SEEK_CUR), fails_with(EINVAL));
    CHECK_THAT(::lseek(fd.get(), 0, 99), fails_with(EINVAL));
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_DATA), succeeds_with(0));
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_HOLE), succeeds_with(10));
    CHECK_THAT(::lseek(fd.get(), 10, SEEK_DATA), fails_with(ENXIO));
}

TEST_CASE("dup: shares the offset and the status flags, not close-on-exec") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDWR);
    const FileDescriptor copy(::dup(fd.get()));
    CHECK_THAT(::lseek(copy.get(), 5, SEEK_SET), succeeds_with(5));
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_CUR), succeeds_with(5));
    CHECK_THAT(::fcntl(copy.get(), F_GETFD), succeeds_with(0));
    CHECK_THAT(::fcntl(copy.get(), F_SETFL, O_APPEND | O_NONBLOCK), succeeds());
    CHECK((::fcntl(fd.get(), F_GETFL) & (O_APPEND | O_NONBLOCK)) == (O_APPEND | O_NONBLOCK));
}

TEST_CASE("dup2 and dup3: replace the target, errors leave it open") {
    TempDir dir;
    const FileDescriptor a = open_file(dir.file("a", "A"), O_RDONLY);
    const FileDescriptor b = open_file(dir.file("b", "B"), O_RDONLY);
    CHECK_THAT(::dup2(a.get(), b.get()), succeeds_with(b.get()));
    CHECK(read_exactly(b.get(), 1) == "A");
    CHECK_THAT(::dup2(a.get(), a.get()), succeeds_with(a.get()));
    CHECK_THAT(::dup3(a.get(), a.get(), 0), fails_with(EINVAL));
    CHECK_THAT(::dup3(a.get(), b.get(), O_CLOEXEC), succeeds());
    CHECK_THAT(::fcntl(b.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
    CHECK_THAT(::dup3(a.get(), b.get(), 0x10), fails_with(EINVAL));
    CHECK_THAT(::dup2(-1, b.get()), fails_with(EBADF));
    CHECK_THAT(::fcntl(b.get(), F_GETFD), succeeds());
    CHECK_THAT(::dup2(a.get(), 1 << 30), fails_with(EBADF));
    CHECK_THAT(::dup2(a.get(), -1), fails_with(EBADF));
    CHECK_THAT(::fcntl(a.get(), F_DUPFD, -1), fails_with(EINVAL));
    CHECK_THAT(::fcntl(a.get(), 9999), fails_with(EINVAL));
    CHECK_THAT(::close(-1), fails_with(EBADF));
}

TEST_CASE("close_range: closes exactly the range or marks it") {
    in_child([] {
        for (int fd = 300; fd < 310; ++fd) {
            CHILD_THAT(::dup2(1, fd), succeeds_with(fd));
        }
        CHILD_THAT(::close_range(302, 304, 0), succeeds());
        CHILD_THAT(::fcntl(301, F_GETFD), succeeds_with(0));
        CHILD_THAT(::fcntl(302, F_GETFD), fails_with(EBADF));
        CHILD_THAT(::fcntl(304, F_GETFD), fails_with(EBADF));
        CHILD_THAT(::fcntl(305, F_GETFD), succeeds_with(0));
        CHILD_THAT(::close_range(306, ~0U, CLOSE_RANGE_CLOEXEC), succeeds());
        CHILD_THAT(::fcntl(309, F_GETFD), succeeds_with(FD_CLOEXEC));
        CHILD_THAT(::close_range(10, 5, 0), fails_with(EINVAL));
        CHILD_THAT(::close_range(10, 11, 0x100), fails_with(EINVAL));
    });
}

TEST_CASE("truncate: shrinks, grows with zeroes, and checks") {
    TempDir dir;
    const std::string path = dir.file("f", "0123456789");
    CHECK_THAT(::truncate(path.c_str(), 4), succeeds());
    CHECK(read_file(path) == "0123");
    CHECK_THAT(::truncate(path.c_str(), 6), succeeds());
    CHECK(read_file(path) == std::string("0123\0\0", 6));
    CHECK_THAT(::truncate(path.c_str(), -1), fails_with(EINVAL));
    CHECK_THAT(::truncate(dir.path().c_str(), 0), fails_with(EISDIR));
    CHECK_THAT(::truncate((dir / "missing").c_str(), 0), fails_with(ENOENT));
    const FileDescriptor reader = open_file(path, O_RDONLY);
    CHECK_THAT(::ftruncate(reader.get(), 0), fails_with(EINVAL));
    CHECK_THAT(::ftruncate(-1, 0), fails_with(EBADF));
}

TEST_CASE("fallocate: extends, keeps the size on request, punches holes") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(16384, 'x'));
    const FileDescriptor fd = open_file(path, O_RDWR);
    const int extended = ::fallocate(fd.get(), 0, 0, 20000);
    SKIP_UNLESS(extended == 0 || errno != EOPNOTSUPP, "no fallocate on this file system");
    CHECK(extended == 0);
    CHECK(size_of(path) == 20000);
    CHECK_THAT(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 20000, 100000), succeeds());
    CHECK(size_of(path) == 20000);
    CHECK_THAT(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096),
               succeeds());
    const std::string now = read_file(path);
    CHECK(now.substr(4096, 4096) == std::string(4096, '\0'));
    CHECK(now[4095] == 'x');
    CHECK(now[8192] == 'x');
    CHECK_THAT(::fallocate(fd.get(), 0, -1, 10), fails_with(EINVAL));
    CHECK_THAT(::fallocate(fd.get(), 0, 0, 0), fails_with(EINVAL));
    CHECK_THAT(::fallocate(fd.get(), 0x8000, 0, 10), fails_with(EOPNOTSUPP));
}

TEST_CASE("unlink: an open file lives on without a name") {
    TempDir dir;
    const std::string path = dir.file("f", "alive");
    const FileDescriptor fd = open_file(path, O_RDWR);
    REQUIRE_THAT(::unlink(path.c_str()), succeeds());
    CHECK_THAT(::open(path.c_str(), O_RDONLY), fails_with(ENOENT));
    CHECK(read_exactly(fd.get(), 5) == "alive");
    CHECK(write_all(fd.get(), "more"));
    struct stat st;
    REQUIRE_THAT(::fstat(fd.get(), &st), succeeds());
    CHECK(st.st_nlink == 0);
    CHECK(st.st_size == 9);
}

TEST_CASE("link: two names, one file") {
    TempDir dir;
    const std::string a = dir.file("a", "one");
    const std::string b = dir / "b";
    REQUIRE_THAT(::link(a.c_str(), b.c_str()), succeeds());
    struct stat first, second;
    REQUIRE_THAT(::stat(a.c_str(), &first), succeeds());
    REQUIRE_THAT(::stat(b.c_str(), &second), succeeds());
    CHECK(first.st_ino == second.st_ino);
    CHECK(first.st_nlink == 2);
    CHECK_THAT(::link(a.c_str(), b.c_str()), fails_with(EEXIST));
    CHECK_THAT(::link(dir.path().c_str(), (dir / "d").c_str()), fails_with(EPERM));
    CHECK_THAT(::link((dir / "missing").c_str(), (dir / "c").c_str()), fails_with(ENOENT));
    REQUIRE_THAT(::unlink(a.c_str()), succeeds());
    CHECK(read_file(b) == "one");
}

TEST_CASE("RLIMIT_FSIZE: writes are cut, then SIGXFSZ and EFBIG") {
    TempDir dir;
    in_child([&] {
        const rlimit limit{100, 100};
        CHILD_THAT(::setrlimit(RLIMIT_FSIZE, &limit), succeeds());
        ::signal(SIGXFSZ, SIG_IGN);
        const FileDescriptor fd(::open((dir / "f").c_str(), O_CREAT | O_RDWR, 0600));
        const std::string text(150, 't');
        CHILD_THAT(::write(fd.get(), text.data(), text.size()), succeeds_with(100));
        CHILD_THAT(::write(fd.get(), text.data(), 1), fails_with(EFBIG));
        CHILD_THAT(::ftruncate(fd.get(), 101), fails_with(EFBIG));
    });
    CHECK(run_in_child([&] {
              const rlimit limit{0, 0};
              ::setrlimit(RLIMIT_FSIZE, &limit);
              const FileDescriptor fd(::open((dir / "g").c_str(), O_CREAT | O_RDWR, 0600));
              (void)::write(fd.get(), "x", 1);
          }) == killed(SIGXFSZ));
}

TEST_CASE("sync calls: succeed on files, fail on what has no storage") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "x"), O_RDWR);
    CHECK_THAT(::fdatasync(fd.get()), succeeds());
    CHECK_THAT(::fsync(fd.get()), succeeds());
    Pipe pipe;
    CHECK_THAT(::fsync(pipe.write_end.get()), fails_with(EINVAL));
    CHECK_THAT(::fsync(-1), fails_with(EBADF));
}

TEST_CASE("flags: F_GETFL shows access mode and flags, creation flags are not kept") {
    TempDir dir;
    const FileDescriptor fd(
        ::open((dir / "f").c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600));
    const int flags = ::fcntl(fd.get(), F_GETFL);
    CHECK((flags & O_ACCMODE) == O_WRONLY);
    CHECK((flags & O_APPEND) != 0);
    CHECK((flags & (O_CREAT | O_TRUNC)) == 0);
    CHECK_THAT(::fcntl(fd.get(), F_SETFL, O_RDONLY), succeeds());
    CHECK((::fcntl(fd.get(), F_GETFL) & O_ACCMODE) == O_WRONLY);
    CHECK((::fcntl(fd.get(), F_GETFL) & O_APPEND) == 0);
}

TEST_CASE("large offsets: a sparse file beyond four gigabytes") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f"), O_RDWR);
    const off_t far = (5L << 30) + 3;
    REQUIRE_THAT(::pwrite(fd.get(), "far", 3, far), succeeds_with(3));
    char buffer[4];
    CHECK_THAT(::pread(fd.get(), buffer, 4, far), succeeds_with(3));
    CHECK(std::memcmp(buffer, "far", 3) == 0);
    CHECK_THAT(::pread(fd.get(), buffer, 4, 1L << 32), succeeds_with(4));
    CHECK(buffer[0] == 0);
    struct stat st;
    REQUIRE_THAT(::fstat(fd.get(), &st), succeeds());
    CHECK(st.st_size == far + 3);
    CHECK(st.st_blocks < 100'000);
}

TEST_CASE("open and close in two threads at once never hand out the wrong file") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(1 << 20, 'r'));
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    Thread closer([&] {
        while (!stop) {
            const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
            if (fd >= 0) {
                ::close(fd);
            }
        }
    });
    for (int i = 0; i < 500; ++i) {
        const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        char c = 0;
        if (::pread(fd.get(), &c, 1, i) != 1 || c != 'r') {
            ++wrong;
        }
    }
    stop = true;
    closer.join();
    CHECK(wrong == 0);
}

}  // namespace
