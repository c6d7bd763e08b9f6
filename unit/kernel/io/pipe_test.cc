#include "kernel/fs/pipe/pipe.h"

#include <fcntl.h>

#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using namespace moat::kernel::test;

namespace {

struct Ends {
    RefPtr<Pipe> pipe = make_ref<Pipe>();
    RefPtr<File> reader = open(O_RDONLY);
    RefPtr<File> writer = open(O_WRONLY);
    ~Ends() {
        const WakeScope scope;
        reader.reset();
        writer.reset();
    }
    RefPtr<File> open(uint32_t flags, PipeFile::Kind kind = PipeFile::Kind::kPipe) {
        const WakeScope scope;
        return PipeFile::open(pipe, kind, flags, 0, 0).value();
    }
};

void close(RefPtr<File>& file) {
    const WakeScope scope;
    file.reset();
}

}  // namespace

TEST_CASE("pipe: bytes come out in the order in which they went in, across the ring's seam") {
    Ends ends;
    std::string expected;
    std::string got;
    for (int i = 0; i < 300; i++) {
        const std::string chunk(997, static_cast<char>('a' + i % 26));
        REQUIRE(write_some(*ends.pipe, chunk).value() == chunk.size());
        expected += chunk;
        if (i % 7 != 0) {
            got += read_some(*ends.pipe, 1100).value();
        }
    }
    while (ends.pipe->size() > 0) {
        got += read_some(*ends.pipe, 4000).value();
    }
    CHECK(got == expected);
}

TEST_CASE("pipe: an atomic write is taken whole or not at all") {
    Ends ends;
    const std::string page(4096, 'x');
    for (int i = 0; i < 15; i++) {
        REQUIRE(write_some(*ends.pipe, page).value() == 4096);
    }
    REQUIRE(write_some(*ends.pipe, "1").value() == 1);
    CHECK(write_some(*ends.pipe, page).error() == EAGAIN);
    CHECK(ends.pipe->size() == 15 * 4096 + 1);
    CHECK(write_some(*ends.pipe, std::string(4095, 'y')).value() == 4095);
    CHECK(ends.pipe->size() == 65536);
}

TEST_CASE("pipe: a larger write takes what fits") {
    Ends ends;
    CHECK(write_some(*ends.pipe, std::string(100000, 'x')).value() == 65536);
    CHECK(write_some(*ends.pipe, std::string(100000, 'x')).error() == EAGAIN);
}

TEST_CASE("pipe: end of file, EPIPE, and the masks of poll(2)") {
    Ends ends;
    CHECK(ends.reader->poll() == 0);
    CHECK(ends.writer->poll() == (EPOLLOUT | EPOLLWRNORM));
    CHECK(read_some(*ends.pipe, 1).error() == EAGAIN);
    REQUIRE(write_some(*ends.pipe, "ab").ok());
    CHECK(ends.reader->poll() == (EPOLLIN | EPOLLRDNORM));
    close(ends.writer);
    CHECK(ends.reader->poll() == (EPOLLIN | EPOLLRDNORM | EPOLLHUP));
    CHECK(read_some(*ends.pipe, 9).value() == "ab");
    CHECK(read_some(*ends.pipe, 9).value() == "");
    CHECK(ends.reader->poll() == EPOLLHUP);

    Ends other;
    close(other.reader);
    CHECK(other.writer->poll() == (EPOLLOUT | EPOLLWRNORM | EPOLLERR));
    CHECK(write_some(*other.pipe, "x").error() == EPIPE);
}

TEST_CASE("pipe: a full pipe becomes writable when a page's worth is free, and tells once") {
    Ends ends;
    REQUIRE(write_some(*ends.pipe, std::string(65536, 'x')).value() == 65536);
    auto waiter = make_ref<RecordingWaiter>();
    ends.pipe->queue().add(waiter.get(), EPOLLOUT);
    CHECK((ends.writer->poll() & EPOLLOUT) == 0);
    REQUIRE(read_some(*ends.pipe, 4095).ok());
    CHECK(waiter->told == 0);
    REQUIRE(read_some(*ends.pipe, 1).ok());
    CHECK(waiter->told == 1);
    CHECK((ends.writer->poll() & EPOLLOUT) != 0);
    REQUIRE(read_some(*ends.pipe, 4096).ok());
    CHECK(waiter->told == 1);
    ends.pipe->queue().remove(waiter.get());
}

TEST_CASE("pipe: the last close of one side wakes the other") {
    Ends ends;
    auto waiter = make_ref<RecordingWaiter>();
    ends.pipe->queue().add(waiter.get(), EPOLLIN);
    RefPtr<File> second = ends.open(O_WRONLY);
    waiter->told = 0;
    close(second);
    CHECK(waiter->told == 0);
    close(ends.writer);
    CHECK(waiter->told == 1);
    CHECK((waiter->seen & EPOLLHUP) != 0);
    ends.pipe->queue().remove(waiter.get());
}

TEST_CASE("pipe: the capacity is a power of two pages, never below what is in it") {
    Ends ends;
    CHECK(ends.pipe->set_capacity(5000, false).value() == 8192);
    REQUIRE(write_some(*ends.pipe, std::string(8192, 'x')).value() == 8192);
    CHECK(ends.pipe->set_capacity(4096, false).error() == EBUSY);
    CHECK(ends.pipe->set_capacity(1 << 21, false).error() == EPERM);
    CHECK(ends.pipe->set_capacity(1 << 21, true).value() == 1 << 21);
    REQUIRE(write_some(*ends.pipe, "tail").ok());
    CHECK(read_some(*ends.pipe, 10000).value() == std::string(8192, 'x') + "tail");
}

TEST_CASE("pipe: peek takes nothing") {
    Ends ends;
    char bytes[8] = {};
    CHECK(ends.pipe->peek(bytes, 8, 0).error() == EAGAIN);
    REQUIRE(write_some(*ends.pipe, "abcdef").ok());
    CHECK(ends.pipe->peek(bytes, 3, 2).value() == 3);
    CHECK(std::string(bytes, 3) == "cde");
    CHECK(ends.pipe->peek(bytes, 3, 6).error() == EAGAIN);
    CHECK(read_some(*ends.pipe, 9).value() == "abcdef");
}

TEST_CASE("fifo: an opener waits for the other side, and is not fooled by a quick visitor") {
    const auto pipe = make_ref<Pipe>();
    const WakeScope scope;
    const auto open = [&](uint32_t flags) {
        return PipeFile::open(pipe, PipeFile::Kind::kFifo, flags, 0, 0);
    };
    CHECK(open(O_WRONLY | O_NONBLOCK).error() == ENXIO);
    RefPtr<File> reader = open(O_RDONLY).value();
    CHECK(reader->finish_open(no_task()).error() == EAGAIN);
    RefPtr<File> writer = open(O_WRONLY).value();
    CHECK(writer->finish_open(no_task()).ok());
    close(writer);
    CHECK(reader->finish_open(no_task()).ok());
    CHECK((reader->poll() & EPOLLHUP) != 0);
    close(reader);

    // A reader that does not wait sees no hang-up before the first writer.
    reader = open(O_RDONLY | O_NONBLOCK).value();
    CHECK(reader->finish_open(no_task()).ok());
    CHECK(reader->poll() == 0);
    writer = open(O_WRONLY | O_NONBLOCK).value();
    REQUIRE(write_some(*pipe, "left").ok());
    close(writer);
    CHECK((reader->poll() & EPOLLHUP) != 0);
    close(reader);
    CHECK(pipe->size() == 0);  // nothing is kept for the next openers
}
