#include "kernel/fs/stdio/attachments.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "kernel/mm/io_buffer.h"
#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using Stream = CriLogSink::Stream;

namespace {

/// Watching descriptors and waiting need the sentry's two threads.
RefPtr<Attachments> attachments(RefPtr<AttachedSink> sink,
                                int64_t patience_ns = Attachments::kPatienceNs) {
    static const bool started = (start_timer_thread(), start_host_poller().ok());
    REQUIRE(started);
    return make_ref<Attachments>(std::move(sink), patience_ns);
}

struct Pipe {
    Pipe() {
        int fds[2];
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        read_end.reset(fds[0]);
        write_end.reset(fds[1]);
    }
    /// Waits for something, and takes it. "": the end.
    std::string take() const {
        char bytes[1 << 17];
        const ssize_t n = read(read_end.get(), bytes, sizeof bytes);
        REQUIRE(n >= 0);
        return {bytes, static_cast<size_t>(n)};
    }
    std::string take(size_t size) const {
        std::string all;
        while (all.size() < size) {
            const std::string some = take();
            REQUIRE(!some.empty());
            all += some;
        }
        return all;
    }
    ScopedFd read_end, write_end;
};

template <typename Condition>
void wait_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
        REQUIRE(std::chrono::steady_clock::now() < deadline);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void say(const RefPtr<Attachments>& all, std::string_view text, Stream stream = Stream::kStdout) {
    const WakeScope scope;
    all->write(stream, text);
}

std::string read_from(AttachedInput& input, size_t size = 100) {
    std::string bytes(size, '\0');
    IoBuffer buffer = IoBuffer::sentry(bytes.data(), size);
    const WakeScope scope;
    const auto n = input.read(buffer);
    return n.ok() ? bytes.substr(0, *n) : "error " + std::to_string(n.error().value());
}

}  // namespace

TEST_CASE("attachments: all who are attached see what is written, each stream apart") {
    const auto all = attachments(nullptr);
    CHECK(all->room() == SIZE_MAX);
    say(all, "nobody is there");
    Pipe out, err, other;
    REQUIRE(all->attach(ScopedFd(), std::move(out.write_end), std::move(err.write_end)).ok());
    REQUIRE(all->attach(ScopedFd(), std::move(other.write_end), ScopedFd()).ok());
    say(all, "one");
    say(all, "two", Stream::kStderr);
    CHECK(out.take() == "one");
    CHECK(err.take() == "two");
    CHECK(other.take() == "one");
    CHECK(all->count() == 2);
    // Closing the other end is how one leaves.
    other.read_end.reset();
    wait_until([&] { return all->count() == 1; });
    out.read_end.reset();
    say(all, "three", Stream::kStderr);
    CHECK(err.take() == "three");
    err.read_end.reset();
    wait_until([&] { return all->count() == 0; });
}

TEST_CASE("attachments: the end delivers what is held, then closes") {
    const auto all = attachments(nullptr);
    Pipe out;
    REQUIRE(all->attach(ScopedFd(), std::move(out.write_end), ScopedFd()).ok());
    const std::string much(100000, 'x');  // more than the pipe takes
    say(all, much);
    {
        const WakeScope scope;
        all->finish();
    }
    CHECK(out.take(much.size()) == much);
    CHECK(out.take() == "");
    wait_until([&] { return all->count() == 0; });
    Pipe late;
    CHECK(all->attach(ScopedFd(), std::move(late.write_end), ScopedFd()).error().value() == ESRCH);
}

TEST_CASE("attachments: one who does not read takes room, and is cut off in the end") {
    const auto all = attachments(nullptr, 50'000'000);
    Pipe lazy;
    REQUIRE(all->attach(ScopedFd(), std::move(lazy.write_end), ScopedFd()).ok());
    const auto waiter = make_ref<test::RecordingWaiter>();
    all->queue().add(waiter.get(), EPOLLOUT);
    const std::string chunk(4096, 'x');
    size_t written = 0;
    while (all->room() > 0) {
        say(all, chunk);
        written += chunk.size();
        REQUIRE(written < 10 * Attachments::kBuffer);
    }
    wait_until([&] { return all->count() == 0; });
    CHECK(all->room() == SIZE_MAX);
    wait_until([&] { return waiter->told > 0; });
    all->queue().remove(waiter.get());
}

TEST_CASE("attachments: one who reads slowly is not cut off") {
    const auto all = attachments(nullptr, 100'000'000);
    Pipe slow;
    REQUIRE(all->attach(ScopedFd(), std::move(slow.write_end), ScopedFd()).ok());
    const std::string chunk(4096, 'x');
    const auto began = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - began < std::chrono::milliseconds(500)) {
        while (all->room() > 0) {
            say(all, chunk);
        }
        REQUIRE(all->count() == 1);
        (void)slow.take();
        wait_until([&] { return all->room() > 0 || all->count() == 0; });
    }
    CHECK(all->count() == 1);
    slow.read_end.reset();
    wait_until([&] { return all->count() == 0; });
}

TEST_CASE(
    "attachments: input comes from all; without stdin-once its end is nobody else's business") {
    const auto input = make_ref<AttachedInput>(AttachedInput::Once::kNo);
    const auto all = attachments(input);
    CHECK(read_from(*input) == "error 11");
    Pipe first, second, out;
    REQUIRE(all->attach(std::move(first.read_end), ScopedFd(), ScopedFd()).ok());
    REQUIRE(all->attach(std::move(second.read_end), std::move(out.write_end), ScopedFd()).ok());
    REQUIRE(write(first.write_end.get(), "one", 3) == 3);
    wait_until([&] { return input->size() == 3; });
    REQUIRE(write(second.write_end.get(), "two", 3) == 3);
    wait_until([&] { return input->size() == 6; });
    CHECK(read_from(*input, 4) == "onet");
    CHECK(read_from(*input) == "wo");
    first.write_end.reset();
    second.write_end.reset();
    wait_until([&] { return all->count() == 1; });  // the second still has output
    CHECK(read_from(*input) == "error 11");
}

TEST_CASE("attachments: with stdin-once the first end is end of file") {
    const auto input = make_ref<AttachedInput>(AttachedInput::Once::kYes);
    const auto all = attachments(input);
    const auto file = make_attached_input_file(input);
    Pipe first, later;
    REQUIRE(all->attach(std::move(first.read_end), ScopedFd(), ScopedFd()).ok());
    REQUIRE(write(first.write_end.get(), "last", 4) == 4);
    first.write_end.reset();
    wait_until([&] { return (file->poll() & EPOLLHUP) != 0; });
    CHECK(read_from(*input) == "last");
    CHECK(read_from(*input) == "");
    REQUIRE(all->attach(std::move(later.read_end), ScopedFd(), ScopedFd()).ok());
    REQUIRE(write(later.write_end.get(), "more", 4) == 4);
    later.write_end.reset();
    wait_until([&] { return all->count() == 0; });
    CHECK(read_from(*input) == "");
}

TEST_CASE("attachments: input that nobody reads waits at its sender's") {
    const auto input = make_ref<AttachedInput>(AttachedInput::Once::kNo);
    const auto all = attachments(input);
    Pipe in;
    REQUIRE(all->attach(std::move(in.read_end), ScopedFd(), ScopedFd()).ok());
    fcntl(in.write_end.get(), F_SETFL, O_NONBLOCK);
    const std::string chunk(4096, 'x');
    size_t sent = 0;
    size_t received = 0;
    const auto fill = [&] {
        for (ssize_t n; (n = write(in.write_end.get(), chunk.data(), chunk.size())) > 0;) {
            sent += static_cast<size_t>(n);
        }
    };
    wait_until([&] {
        fill();
        return input->size() == AttachedInput::kCapacity;
    });
    CHECK(sent <= AttachedInput::kCapacity + 65536);
    in.write_end.reset();
    wait_until([&] {
        const std::string some = read_from(*input, 4096);
        received += some.rfind("error", 0) == 0 ? 0 : some.size();
        return received == sent;
    });
}

TEST_CASE("attachments: a container without input takes none") {
    const auto all = attachments(nullptr);
    Pipe in;
    CHECK(all->attach(std::move(in.read_end), ScopedFd(), ScopedFd()).error().value() == EINVAL);
}
