// flock(2), POSIX record locks and open file description locks of fcntl(2).

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct flock range(short type, off_t start = 0, off_t length = 0) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    return lock;
}

int set(int fd, short type, off_t start = 0, off_t length = 0, int command = F_SETLK) {
    struct flock lock = range(type, start, length);
    return ::fcntl(fd, command, &lock);
}

TEST_CASE("flock: exclusive excludes, shared shares, across descriptions") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor a = open_file(path, O_RDONLY), b = open_file(path, O_RDONLY);
    CHECK_THAT(::flock(a.get(), LOCK_SH), succeeds());
    CHECK_THAT(::flock(b.get(), LOCK_SH | LOCK_NB), succeeds());
    CHECK_THAT(::flock(b.get(), LOCK_EX | LOCK_NB), fails_with(EWOULDBLOCK));
    CHECK_THAT(::flock(a.get(), LOCK_UN), succeeds());
    CHECK_THAT(::flock(b.get(), LOCK_EX | LOCK_NB), succeeds());
    CHECK_THAT(::flock(a.get(), LOCK_SH | LOCK_NB), fails_with(EWOULDBLOCK));
}

TEST_CASE(
    "flock: the lock belongs to the description: dup and fork share it, the last close ends it") {
    TempDir dir;
    const std::string path = dir.file("f");
    FileDescriptor a = open_file(path, O_RDONLY);
    const FileDescriptor b = open_file(path, O_RDONLY);
    REQUIRE_THAT(::flock(a.get(), LOCK_EX), succeeds());
    FileDescriptor copy(::dup(a.get()));
    in_child([&] { CHILD_THAT(::flock(a.get(), LOCK_EX | LOCK_NB), succeeds()); });
    a.reset();
    CHECK_THAT(::flock(b.get(), LOCK_EX | LOCK_NB), fails_with(EWOULDBLOCK));
    copy.reset();
    CHECK_THAT(::flock(b.get(), LOCK_EX | LOCK_NB), succeeds());
}

TEST_CASE("flock: a blocked locker gets the lock when it is released") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor a = open_file(path, O_RDONLY);
    REQUIRE_THAT(::flock(a.get(), LOCK_EX), succeeds());
    Child waiter([&] {
        const FileDescriptor mine = open_file(path, O_RDONLY);
        CHILD_THAT(::flock(mine.get(), LOCK_EX), succeeds());
    });
    wait_until_blocked(waiter.pid());
    CHECK_THAT(::flock(a.get(), LOCK_UN), succeeds());
    CHECK(waiter.wait() == exited(0));
}

TEST_CASE("flock: the death of the holder releases the lock") {
    TempDir dir;
    const std::string path = dir.file("f");
    Gate locked;
    Child holder([&] {
        const FileDescriptor mine = open_file(path, O_RDONLY);
        CHILD_THAT(::flock(mine.get(), LOCK_EX), succeeds());
        locked.open();
        ::pause();
    });
    locked.wait();
    const FileDescriptor fd = open_file(path, O_RDONLY);
    CHECK_THAT(::flock(fd.get(), LOCK_EX | LOCK_NB), fails_with(EWOULDBLOCK));
    holder.kill(SIGKILL);
    CHECK_THAT(::flock(fd.get(), LOCK_EX), succeeds());
}

TEST_CASE("flock: a signal interrupts the wait") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor a = open_file(path, O_RDONLY);
    REQUIRE_THAT(::flock(a.get(), LOCK_EX), succeeds());
    Child waiter([&] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &action, nullptr);
        const FileDescriptor mine = open_file(path, O_RDONLY);
        CHILD_THAT(::flock(mine.get(), LOCK_EX), fails_with(EINTR));
    });
    wait_until_blocked(waiter.pid());
    waiter.kill(SIGUSR1);
    CHECK(waiter.wait() == exited(0));
}

TEST_CASE("flock: wrong operations and descriptors fail") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f"), O_RDONLY);
    CHECK_THAT(::flock(fd.get(), 0), fails_with(EINVAL));
    CHECK_THAT(::flock(fd.get(), LOCK_SH | LOCK_EX), fails_with(EINVAL));
    CHECK_THAT(::flock(-1, LOCK_SH), fails_with(EBADF));
}

TEST_CASE("record locks: other processes conflict by range, one's own never") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(100, 'x'));
    const FileDescriptor fd = open_file(path, O_RDWR);
    CHECK_THAT(set(fd.get(), F_WRLCK, 10, 10), succeeds());
    CHECK_THAT(set(fd.get(), F_RDLCK, 12, 2), succeeds());
    in_child([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        CHILD_THAT(set(mine.get(), F_WRLCK, 0, 10), succeeds());
        CHILD_THAT(set(mine.get(), F_WRLCK, 10, 1), fails_with_any({EAGAIN, EACCES}));
        CHILD_THAT(set(mine.get(), F_RDLCK, 12, 2), succeeds());
        CHILD_THAT(set(mine.get(), F_WRLCK, 12, 1), fails_with_any({EAGAIN, EACCES}));
        CHILD_THAT(set(mine.get(), F_WRLCK, 20, 0), succeeds());
    });
}

TEST_CASE("record locks: F_GETLK tells who holds what") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor fd = open_file(path, O_RDWR);
    REQUIRE_THAT(set(fd.get(), F_WRLCK, 30, 5), succeeds());
    const pid_t holder = ::getpid();
    in_child([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        struct flock lock = range(F_RDLCK);
        CHILD_THAT(::fcntl(mine.get(), F_GETLK, &lock), succeeds());
        CHILD_CHECK(lock.l_type == F_WRLCK);
        CHILD_CHECK(lock.l_start == 30);
        CHILD_CHECK(lock.l_len == 5);
        CHILD_CHECK(lock.l_pid == holder);
        lock = range(F_WRLCK, 35, 0);
        CHILD_THAT(::fcntl(mine.get(), F_GETLK, &lock), succeeds());
        CHILD_CHECK(lock.l_type == F_UNLCK);
    });
}

TEST_CASE("record locks: unlocking the middle splits, joining merges") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor fd = open_file(path, O_RDWR);
    REQUIRE_THAT(set(fd.get(), F_WRLCK, 0, 30), succeeds());
    REQUIRE_THAT(set(fd.get(), F_UNLCK, 10, 10), succeeds());
    in_child([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        CHILD_THAT(set(mine.get(), F_WRLCK, 9, 1), fails_with_any({EAGAIN, EACCES}));
        CHILD_THAT(set(mine.get(), F_WRLCK, 10, 10), succeeds());
        CHILD_THAT(set(mine.get(), F_WRLCK, 20, 1), fails_with_any({EAGAIN, EACCES}));
    });
    REQUIRE_THAT(set(fd.get(), F_WRLCK, 10, 10), succeeds());
    in_child([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        struct flock lock = range(F_WRLCK);
        CHILD_THAT(::fcntl(mine.get(), F_GETLK, &lock), succeeds());
        CHILD_CHECK(lock.l_start == 0);
        CHILD_CHECK(lock.l_len == 30);
    });
}

TEST_CASE(
    "record locks: closing any descriptor of the file drops them, fork does not inherit them") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor fd = open_file(path, O_RDWR);
    REQUIRE_THAT(set(fd.get(), F_WRLCK), succeeds());
    in_child([&] { CHILD_THAT(set(fd.get(), F_WRLCK), fails_with_any({EAGAIN, EACCES})); });
    open_file(path, O_RDONLY).reset();
    in_child([&] { CHILD_THAT(set(fd.get(), F_WRLCK), succeeds()); });
}

TEST_CASE("record locks: F_SETLKW waits for the holder's end") {
    TempDir dir;
    const std::string path = dir.file("f");
    Gate locked;
    Child holder([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        CHILD_THAT(set(mine.get(), F_WRLCK), succeeds());
        locked.open();
        ::pause();
    });
    locked.wait();
    Child waiter([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        CHILD_THAT(set(mine.get(), F_WRLCK, 0, 0, F_SETLKW), succeeds());
    });
    wait_until_blocked(waiter.pid());
    holder.kill(SIGKILL);
    CHECK(waiter.wait() == exited(0));
}

TEST_CASE("record locks: a deadlock of two is found") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor fd = open_file(path, O_RDWR);
    REQUIRE_THAT(set(fd.get(), F_WRLCK, 0, 1), succeeds());
    Gate locked;
    Child other([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        CHILD_THAT(set(mine.get(), F_WRLCK, 1, 1), succeeds());
        locked.open();
        CHILD_THAT(set(mine.get(), F_WRLCK, 0, 1, F_SETLKW), succeeds());
    });
    locked.wait();
    wait_until_blocked(other.pid());
    CHECK_THAT(set(fd.get(), F_WRLCK, 1, 1, F_SETLKW), fails_with(EDEADLK));
    CHECK_THAT(set(fd.get(), F_UNLCK, 0, 1), succeeds());
    CHECK(other.wait() == exited(0));
}

TEST_CASE("record locks: access modes, ranges and pointers are checked") {
    TempDir dir;
    const std::string path = dir.file("f");
    const FileDescriptor reader = open_file(path, O_RDONLY), writer = open_file(path, O_WRONLY);
    CHECK_THAT(set(reader.get(), F_WRLCK), fails_with(EBADF));
    CHECK_THAT(set(writer.get(), F_RDLCK), fails_with(EBADF));
    CHECK_THAT(set(writer.get(), F_WRLCK, -5, 1), fails_with(EINVAL));
    CHECK_THAT(set(writer.get(), F_WRLCK, 5, -10), fails_with(EINVAL));
    CHECK_THAT(set(writer.get(), F_WRLCK, 5, -5), succeeds());
    CHECK_THAT(set(writer.get(), 99), fails_with(EINVAL));
    CHECK_THAT(::fcntl(writer.get(), F_SETLK, bad<struct flock>()), fails_with(EFAULT));
}

TEST_CASE(
    "OFD locks: belong to the description, conflict within one process, survive other closes") {
    TempDir dir;
    const std::string path = dir.file("f");
    FileDescriptor a = open_file(path, O_RDWR);
    const FileDescriptor b = open_file(path, O_RDWR);
    CHECK_THAT(set(a.get(), F_WRLCK, 0, 10, F_OFD_SETLK), succeeds());
    CHECK_THAT(set(b.get(), F_WRLCK, 5, 1, F_OFD_SETLK), fails_with(EAGAIN));
    CHECK_THAT(set(b.get(), F_WRLCK, 5, 1, F_SETLK), fails_with_any({EAGAIN, EACCES}));
    open_file(path, O_RDONLY).reset();
    CHECK_THAT(set(b.get(), F_WRLCK, 5, 1, F_OFD_SETLK), fails_with(EAGAIN));
    struct flock lock = range(F_WRLCK);
    CHECK_THAT(::fcntl(b.get(), F_OFD_GETLK, &lock), succeeds());
    CHECK(lock.l_pid == -1);
    CHECK(lock.l_len == 10);
    in_child([&] { CHILD_THAT(set(a.get(), F_WRLCK, 0, 10, F_OFD_SETLK), succeeds()); });
    a.reset();
    CHECK_THAT(set(b.get(), F_WRLCK, 5, 1, F_OFD_SETLK), succeeds());
}

TEST_CASE("OFD locks: l_pid must be zero") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f"), O_RDWR);
    struct flock lock = range(F_WRLCK);
    lock.l_pid = 1;
    CHECK_THAT(::fcntl(fd.get(), F_OFD_SETLK, &lock), fails_with(EINVAL));
}

}  // namespace
