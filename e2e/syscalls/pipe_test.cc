// pipe(2), pipe(7), fcntl F_SETPIPE_SZ and FIONREAD.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// Fills a pipe whose write end does not block; the number of bytes that fit.
size_t fill(int fd) {
    const std::string page(4096, 'f');
    size_t total = 0;
    for (;;) {
        const ssize_t n = ::write(fd, page.data(), page.size());
        if (n < 0) {
            return total;
        }
        total += static_cast<size_t>(n);
    }
}

TEST_CASE("pipe: bytes come out in the order in which they went in") {
    Pipe pipe;
    REQUIRE(write_all(pipe.write_end.get(), "one "));
    REQUIRE(write_all(pipe.write_end.get(), "two"));
    CHECK(read_exactly(pipe.read_end.get(), 7) == "one two");
}

TEST_CASE("pipe: a read returns what is there and does not wait for more") {
    Pipe pipe;
    REQUIRE(write_all(pipe.write_end.get(), "abc"));
    FencedBuffer buffer(100);
    CHECK_THAT(::read(pipe.read_end.get(), buffer.data(), 100), succeeds_with(3));
    CHECK(std::memcmp(buffer.data(), "abc", 3) == 0);
    CHECK(buffer.intact());
    CHECK(buffer.untouched_from(3));
}

TEST_CASE("pipe: read returns zero after the last writer closes") {
    Pipe pipe;
    REQUIRE(write_all(pipe.write_end.get(), "rest"));
    FileDescriptor second(::dup(pipe.write_end.get()));
    pipe.write_end.reset();
    second.reset();
    char buffer[8];
    CHECK_THAT(::read(pipe.read_end.get(), buffer, sizeof buffer), succeeds_with(4));
    CHECK_THAT(::read(pipe.read_end.get(), buffer, sizeof buffer), succeeds_with(0));
}

TEST_CASE("pipe: a blocked read is woken by a write") {
    Pipe pipe;
    std::string got;
    Thread reader([&] { got = read_exactly(pipe.read_end.get(), 5); });
    wait_until_blocked(::getpid(), reader.tid());
    REQUIRE(write_all(pipe.write_end.get(), "hello"));
    reader.join();
    CHECK(got == "hello");
}

TEST_CASE("pipe: a blocked read is woken by the last writer's exit") {
    Pipe pipe;
    Gate leave;
    Child writer([&] {
        pipe.read_end.reset();
        leave.wait();
    });
    pipe.write_end.reset();
    ssize_t n = -1;
    Thread reader([&] {
        char c;
        n = ::read(pipe.read_end.get(), &c, 1);
    });
    wait_until_blocked(::getpid(), reader.tid());
    leave.open();
    reader.join();
    CHECK(n == 0);
    CHECK(writer.wait() == exited(0));
}

TEST_CASE("pipe: write without readers raises SIGPIPE") {
    CHECK(run_in_child([] {
              ::signal(SIGPIPE, SIG_DFL);
              Pipe pipe;
              pipe.read_end.reset();
              ::write(pipe.write_end.get(), "x", 1);
          }) == killed(SIGPIPE));
}

TEST_CASE("pipe: write without readers fails with EPIPE when SIGPIPE is ignored") {
    in_child([] {
        ::signal(SIGPIPE, SIG_IGN);
        Pipe pipe;
        pipe.read_end.reset();
        CHILD_THAT(::write(pipe.write_end.get(), "x", 1), fails_with(EPIPE));
    });
}

TEST_CASE("pipe: an empty non-blocking read fails with EAGAIN") {
    Pipe pipe(O_NONBLOCK);
    char c;
    CHECK_THAT(::read(pipe.read_end.get(), &c, 1), fails_with(EAGAIN));
}

TEST_CASE("pipe: it takes 64 KiB and then EAGAIN") {
    Pipe pipe(O_NONBLOCK);
    CHECK(fill(pipe.write_end.get()) == 65536);
    CHECK_THAT(::write(pipe.write_end.get(), "x", 1), fails_with(EAGAIN));
}

TEST_CASE("pipe: a non-blocking write of at most PIPE_BUF is all or nothing") {
    Pipe pipe(O_NONBLOCK);
    fill(pipe.write_end.get());
    // Room of less than a page, at the end of the last one: too little for 4096 bytes.
    char page[4096];
    REQUIRE_THAT(::read(pipe.read_end.get(), page, 100), succeeds_with(100));
    CHECK_THAT(::write(pipe.write_end.get(), page, sizeof page), fails_with(EAGAIN));
}

TEST_CASE("pipe: a blocking write larger than the pipe returns when all was taken") {
    Pipe pipe;
    const std::string big(300'000, 'b');
    ssize_t written = 0;
    Thread writer([&] { written = ::write(pipe.write_end.get(), big.data(), big.size()); });
    CHECK(read_exactly(pipe.read_end.get(), big.size()) == big);
    writer.join();
    CHECK(written == static_cast<ssize_t>(big.size()));
}

TEST_CASE("pipe: small writes of two processes do not mix") {
    Pipe pipe;
    const auto writer = [&](char letter) {
        return [&pipe, letter] {
            const std::string block(512, letter);
            for (int i = 0; i < 200; ++i) {
                CHILD_THAT(::write(pipe.write_end.get(), block.data(), block.size()),
                           succeeds_with(512));
            }
        };
    };
    Child a(writer('a'));
    Child b(writer('b'));
    pipe.write_end.reset();
    bool whole = true;
    int blocks = 0;
    for (;;) {
        const std::string block = read_exactly(pipe.read_end.get(), 512);
        if (block.empty()) {
            break;
        }
        ++blocks;
        whole = whole && block == std::string(512, block[0]);
    }
    CHECK(whole);
    CHECK(blocks == 400);
    CHECK(a.wait() == exited(0));
    CHECK(b.wait() == exited(0));
}

TEST_CASE("pipe: reading the write end and writing the read end fail with EBADF") {
    Pipe pipe;
    char c = 0;
    CHECK_THAT(::read(pipe.write_end.get(), &c, 1), fails_with(EBADF));
    CHECK_THAT(::write(pipe.read_end.get(), &c, 1), fails_with(EBADF));
}

TEST_CASE("pipe: no end can seek") {
    Pipe pipe;
    CHECK_THAT(::lseek(pipe.read_end.get(), 0, SEEK_CUR), fails_with(ESPIPE));
    char c = 0;
    CHECK_THAT(::pread(pipe.read_end.get(), &c, 1, 0), fails_with(ESPIPE));
    CHECK_THAT(::pwrite(pipe.write_end.get(), &c, 1, 0), fails_with(ESPIPE));
}

TEST_CASE("pipe: fstat shows a FIFO and both ends are one inode") {
    Pipe pipe;
    struct stat a, b;
    REQUIRE_THAT(::fstat(pipe.read_end.get(), &a), succeeds());
    REQUIRE_THAT(::fstat(pipe.write_end.get(), &b), succeeds());
    CHECK(S_ISFIFO(a.st_mode));
    CHECK(a.st_ino == b.st_ino);
}

TEST_CASE("pipe: O_CLOEXEC and O_NONBLOCK land where they belong") {
    Pipe pipe(O_CLOEXEC | O_NONBLOCK);
    CHECK_THAT(::fcntl(pipe.read_end.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
    CHECK_THAT(::fcntl(pipe.read_end.get(), F_GETFL), succeeds_with(O_RDONLY | O_NONBLOCK));
    CHECK_THAT(::fcntl(pipe.write_end.get(), F_GETFL), succeeds_with(O_WRONLY | O_NONBLOCK));
    Pipe plain(0);
    CHECK_THAT(::fcntl(plain.read_end.get(), F_GETFD), succeeds_with(0));
}

TEST_CASE("pipe2: unknown flags fail with EINVAL") {
    int fds[2] = {-7, -7};
    CHECK_THAT(::pipe2(fds, O_APPEND), fails_with(EINVAL));
    CHECK(fds[0] == -7);
}

TEST_CASE("pipe2: a bad pointer fails with EFAULT and leaks no descriptor") {
    const FileDescriptor before(::dup(1));
    const int next = before.get() + 1;
    CHECK_THAT(::pipe2(bad<int>(), 0), fails_with(EFAULT));
    const FileDescriptor after(::dup(1));
    CHECK(after.get() <= next);
}

TEST_CASE("pipe: FIONREAD counts the bytes inside") {
    Pipe pipe;
    int n = -1;
    REQUIRE_THAT(::ioctl(pipe.read_end.get(), FIONREAD, &n), succeeds());
    CHECK(n == 0);
    REQUIRE(write_all(pipe.write_end.get(), "12345"));
    REQUIRE_THAT(::ioctl(pipe.read_end.get(), FIONREAD, &n), succeeds());
    CHECK(n == 5);
}

TEST_CASE("pipe: F_SETPIPE_SZ rounds up to pages and refuses to lose data") {
    Pipe pipe(O_NONBLOCK);
    CHECK_THAT(::fcntl(pipe.write_end.get(), F_GETPIPE_SZ), succeeds_with(65536));
    CHECK_THAT(::fcntl(pipe.write_end.get(), F_SETPIPE_SZ, 5000), succeeds_with(8192));
    CHECK(fill(pipe.write_end.get()) == 8192);
    CHECK_THAT(::fcntl(pipe.write_end.get(), F_SETPIPE_SZ, 4096), fails_with(EBUSY));
    CHECK_THAT(::fcntl(pipe.write_end.get(), F_SETPIPE_SZ, 1 << 18), succeeds_with(1 << 18));
    CHECK(fill(pipe.write_end.get()) == (1 << 18) - 8192);
}

TEST_CASE("pipe: readv scatters and writev gathers") {
    Pipe pipe;
    char one[] = "ab", two[] = "cde";
    const iovec out[] = {{one, 2}, {nullptr, 0}, {two, 3}};
    CHECK_THAT(::writev(pipe.write_end.get(), out, 3), succeeds_with(5));
    char x[4] = {}, y[4] = {};
    const iovec in[] = {{x, 1}, {y, 4}};
    CHECK_THAT(::readv(pipe.read_end.get(), in, 2), succeeds_with(5));
    CHECK(x[0] == 'a');
    CHECK(std::memcmp(y, "bcde", 4) == 0);
}

TEST_CASE("pipe: writes of zero bytes are not seen by the reader") {
    Pipe pipe(O_NONBLOCK);
    CHECK_THAT(::write(pipe.write_end.get(), "", 0), succeeds_with(0));
    char c;
    CHECK_THAT(::read(pipe.read_end.get(), &c, 1), fails_with(EAGAIN));
    CHECK_THAT(::read(pipe.read_end.get(), &c, 0), succeeds_with(0));
}

TEST_CASE("pipe: a signal interrupts a blocked read with EINTR") {
    in_child([] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        CHILD_THAT(::sigaction(SIGUSR1, &action, nullptr), succeeds());
        Pipe pipe;
        const pid_t self = ::getpid();
        const pid_t main_tid = gettid_now();
        Thread killer([=] {
            wait_until_blocked(self, main_tid);
            ::kill(self, SIGUSR1);
        });
        char c;
        CHILD_THAT(::read(pipe.read_end.get(), &c, 1), fails_with(EINTR));
    });
}

TEST_CASE("pipe: close while another thread blocks in read") {
    // Linux keeps the file alive for the reader; a later write through a copy still reaches it.
    Pipe pipe;
    const FileDescriptor other_writer(::dup(pipe.write_end.get()));
    std::string got;
    const int raw_reader = pipe.read_end.release();
    Thread reader([&] { got = read_exactly(raw_reader, 1); });
    wait_until_blocked(::getpid(), reader.tid());
    CHECK_THAT(::close(raw_reader), succeeds());
    pipe.write_end.reset();
    REQUIRE(write_all(other_writer.get(), "z"));
    reader.join();
    CHECK(got == "z");
}

TEST_CASE("fifo: open for reading waits for a writer and the other way round") {
    TempDir dir;
    const std::string path = dir / "fifo";
    REQUIRE_THAT(::mkfifo(path.c_str(), 0600), succeeds());
    std::string got;
    Thread reader([&] {
        const FileDescriptor fd = open_file(path, O_RDONLY);
        got = read_all(fd.get());
    });
    wait_until_blocked(::getpid(), reader.tid());
    {
        const FileDescriptor writer = open_file(path, O_WRONLY);
        CHECK(write_all(writer.get(), "through the fifo"));
    }
    reader.join();
    CHECK(got == "through the fifo");
}

TEST_CASE("fifo: a non-blocking writer without a reader gets ENXIO") {
    TempDir dir;
    const std::string path = dir / "fifo";
    REQUIRE_THAT(::mkfifo(path.c_str(), 0600), succeeds());
    CHECK_THAT(::open(path.c_str(), O_WRONLY | O_NONBLOCK), fails_with(ENXIO));
    const FileDescriptor reader = open_file(path, O_RDONLY | O_NONBLOCK);
    const FileDescriptor writer = open_file(path, O_WRONLY | O_NONBLOCK);
    CHECK(write_all(writer.get(), "x"));
    CHECK(read_exactly(reader.get(), 1) == "x");
}

TEST_CASE("pipe: O_DIRECT keeps packets apart") {
    Pipe pipe(O_DIRECT);
    REQUIRE(write_all(pipe.write_end.get(), "first"));
    REQUIRE(write_all(pipe.write_end.get(), "second"));
    char buffer[64];
    CHECK_THAT(::read(pipe.read_end.get(), buffer, sizeof buffer), succeeds_with(5));
    CHECK_THAT(::read(pipe.read_end.get(), buffer, 3), succeeds_with(3));
    CHECK(std::memcmp(buffer, "sec", 3) == 0);
}

}  // namespace
