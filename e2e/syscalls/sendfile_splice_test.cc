// sendfile(2), splice(2), tee(2), vmsplice(2), copy_file_range(2).

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("sendfile: from a file to a socket, moves the file's offset") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("f", "0123456789"), O_RDONLY);
    SocketPair pair(SOCK_STREAM);
    REQUIRE_THAT(::lseek(in.get(), 2, SEEK_SET), succeeds());
    CHECK_THAT(::sendfile(pair.a.get(), in.get(), nullptr, 5), succeeds_with(5));
    CHECK(read_exactly(pair.b.get(), 5) == "23456");
    CHECK_THAT(::lseek(in.get(), 0, SEEK_CUR), succeeds_with(7));
}

TEST_CASE("sendfile: with an offset leaves the file's own alone, and stops at the end") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("f", "0123456789"), O_RDONLY);
    Pipe pipe;
    off_t offset = 6;
    CHECK_THAT(::sendfile(pipe.write_end.get(), in.get(), &offset, 100), succeeds_with(4));
    CHECK(offset == 10);
    CHECK_THAT(::lseek(in.get(), 0, SEEK_CUR), succeeds_with(0));
    CHECK_THAT(::sendfile(pipe.write_end.get(), in.get(), &offset, 100), succeeds_with(0));
    CHECK(read_exactly(pipe.read_end.get(), 4) == "6789");
}

TEST_CASE("sendfile: between files") {
    TempDir dir;
    const std::string text(100'000, 's');
    const FileDescriptor in = open_file(dir.file("in", text), O_RDONLY);
    const FileDescriptor out = open_file(dir.file("out"), O_RDWR);
    CHECK_THAT(::sendfile(out.get(), in.get(), nullptr, text.size()), succeeds_with(100'000));
    CHECK(read_file(dir / "out") == text);
}

TEST_CASE("sendfile: errors") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("in", "x"), O_RDWR);
    const FileDescriptor reader = open_file(dir.file("out"), O_RDONLY);
    const FileDescriptor appender = open_file(dir.file("append"), O_WRONLY | O_APPEND);
    Pipe pipe;
    CHECK_THAT(::sendfile(reader.get(), in.get(), nullptr, 1), fails_with(EBADF));
    CHECK_THAT(::sendfile(appender.get(), in.get(), nullptr, 1), fails_with(EINVAL));
    CHECK_THAT(::sendfile(pipe.write_end.get(), 999, nullptr, 1), fails_with(EBADF));
    CHECK_THAT(::sendfile(pipe.write_end.get(), in.get(), bad<off_t>(), 1), fails_with(EFAULT));
    off_t negative = -1;
    CHECK_THAT(::sendfile(pipe.write_end.get(), in.get(), &negative, 1), fails_with(EINVAL));
}

TEST_CASE("splice: file to pipe to file") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("in", "spliced text"), O_RDONLY);
    const FileDescriptor out = open_file(dir.file("out", "............"), O_RDWR);
    Pipe pipe;
    CHECK_THAT(::splice(in.get(), nullptr, pipe.write_end.get(), nullptr, 7, 0), succeeds_with(7));
    off_t at = 2;
    CHECK_THAT(::splice(pipe.read_end.get(), nullptr, out.get(), &at, 100, 0), succeeds_with(7));
    CHECK(at == 9);
    CHECK(read_file(dir / "out") == "..spliced...");
}

TEST_CASE("splice: pipe to pipe, and end of file is zero") {
    Pipe a, b;
    REQUIRE(write_all(a.write_end.get(), "abcdef"));
    CHECK_THAT(::splice(a.read_end.get(), nullptr, b.write_end.get(), nullptr, 4, 0),
               succeeds_with(4));
    CHECK(read_exactly(b.read_end.get(), 4) == "abcd");
    CHECK(read_exactly(a.read_end.get(), 2) == "ef");
    a.write_end.reset();
    CHECK_THAT(::splice(a.read_end.get(), nullptr, b.write_end.get(), nullptr, 4, 0),
               succeeds_with(0));
}

TEST_CASE("splice: a non-blocking call on an empty pipe fails with EAGAIN") {
    Pipe a, b;
    CHECK_THAT(
        ::splice(a.read_end.get(), nullptr, b.write_end.get(), nullptr, 4, SPLICE_F_NONBLOCK),
        fails_with(EAGAIN));
}

TEST_CASE("splice: needs a pipe, offsets only for files, no unknown flags") {
    TempDir dir;
    const FileDescriptor a = open_file(dir.file("a", "x"), O_RDWR);
    const FileDescriptor b = open_file(dir.file("b", "x"), O_RDWR);
    Pipe pipe;
    off_t offset = 0;
    CHECK_THAT(::splice(a.get(), nullptr, b.get(), nullptr, 1, 0), fails_with(EINVAL));
    CHECK_THAT(::splice(a.get(), nullptr, pipe.write_end.get(), &offset, 1, 0), fails_with(ESPIPE));
    CHECK_THAT(::splice(a.get(), nullptr, pipe.write_end.get(), nullptr, 1, 0x1000),
               fails_with(EINVAL));
    CHECK_THAT(::splice(pipe.read_end.get(), nullptr, pipe.write_end.get(), nullptr, 1, 0),
               fails_with(EINVAL));
    CHECK_THAT(::splice(999, nullptr, pipe.write_end.get(), nullptr, 1, 0), fails_with(EBADF));
}

TEST_CASE("tee: copies without taking") {
    Pipe a, b;
    REQUIRE(write_all(a.write_end.get(), "twice"));
    CHECK_THAT(::tee(a.read_end.get(), b.write_end.get(), 100, 0), succeeds_with(5));
    CHECK(read_exactly(a.read_end.get(), 5) == "twice");
    CHECK(read_exactly(b.read_end.get(), 5) == "twice");
}

TEST_CASE("vmsplice: memory into a pipe") {
    Pipe pipe;
    char one[] = "vm", two[] = "splice";
    const iovec parts[] = {{one, 2}, {two, 6}};
    CHECK_THAT(::vmsplice(pipe.write_end.get(), parts, 2, 0), succeeds_with(8));
    CHECK(read_exactly(pipe.read_end.get(), 8) == "vmsplice");
    CHECK_THAT(::vmsplice(999, parts, 2, 0), fails_with(EBADF));
}

TEST_CASE("copy_file_range: copies, with and without offsets, and stops at the end") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("in", "0123456789"), O_RDONLY);
    const FileDescriptor out = open_file(dir.file("out"), O_RDWR);
    CHECK_THAT(::copy_file_range(in.get(), nullptr, out.get(), nullptr, 4, 0), succeeds_with(4));
    off_t from = 8, to = 20;
    CHECK_THAT(::copy_file_range(in.get(), &from, out.get(), &to, 100, 0), succeeds_with(2));
    CHECK(from == 10);
    CHECK(to == 22);
    const std::string now = read_file(dir / "out");
    CHECK(now.size() == 22);
    CHECK(now.substr(0, 4) == "0123");
    CHECK(now.substr(20) == "89");
    CHECK_THAT(::copy_file_range(in.get(), &from, out.get(), &to, 100, 0), succeeds_with(0));
}

TEST_CASE("copy_file_range: errors") {
    TempDir dir;
    const FileDescriptor in = open_file(dir.file("in", "0123456789"), O_RDWR);
    const FileDescriptor reader = open_file(dir.file("out"), O_RDONLY);
    const FileDescriptor appender = open_file(dir.file("append"), O_WRONLY | O_APPEND);
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY);
    Pipe pipe;
    CHECK_THAT(::copy_file_range(in.get(), nullptr, reader.get(), nullptr, 4, 0),
               fails_with(EBADF));
    CHECK_THAT(::copy_file_range(in.get(), nullptr, appender.get(), nullptr, 4, 0),
               fails_with(EBADF));
    CHECK_THAT(::copy_file_range(directory.get(), nullptr, in.get(), nullptr, 4, 0),
               fails_with(EISDIR));
    CHECK_THAT(::copy_file_range(pipe.read_end.get(), nullptr, in.get(), nullptr, 4, 0),
               fails_with(EINVAL));
    CHECK_THAT(::copy_file_range(in.get(), nullptr, in.get(), nullptr, 4, 0x10),
               fails_with(EINVAL));
    off_t a = 0, b = 2;
    CHECK_THAT(::copy_file_range(in.get(), &a, in.get(), &b, 5, 0), fails_with(EINVAL));
}

}  // namespace
