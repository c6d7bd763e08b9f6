#include "kernel/fs/stdio/cri_log.h"

#include "kernel/fs/stdio/attachments.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <regex>
#include <thread>

using moat::ScopedFd;
using moat::kernel::CriLogSink;
using Stream = CriLogSink::Stream;

namespace {

ScopedFd memory_file() { return ScopedFd(memfd_create("log", MFD_CLOEXEC)); }
ScopedFd another(const ScopedFd& fd) { return ScopedFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

std::vector<std::string> lines_of(const ScopedFd& fd) {
    std::string all(static_cast<size_t>(lseek(fd.get(), 0, SEEK_END)), '\0');
    REQUIRE(pread(fd.get(), all.data(), all.size(), 0) == static_cast<ssize_t>(all.size()));
    std::vector<std::string> lines;
    for (size_t at = 0; at < all.size();) {
        const size_t end = all.find('\n', at);
        REQUIRE(end != std::string::npos);  // whatever is written ends in a newline
        lines.push_back(all.substr(at, end - at));
        at = end + 1;
    }
    return lines;
}

/// The line without its time, which must be one.
std::string untimed(const std::string& line) {
    static const std::regex form(
        R"((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) ((stdout|stderr) [FP] [^]*))");
    std::smatch match;
    REQUIRE(std::regex_match(line, match, form));
    return match[2];
}

std::vector<std::string> untimed(const std::vector<std::string>& lines) {
    std::vector<std::string> result;
    for (const std::string& line : lines) {
        result.push_back(untimed(line));
    }
    return result;
}

}  // namespace

TEST_CASE("CRI log: each line has a time, its stream and F") {
    const ScopedFd file = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(file));
    sink->write(Stream::kStdout, "one\ntwo\n");
    sink->write(Stream::kStderr, "three\n");
    sink->write(Stream::kStdout, "\n");
    CHECK(untimed(lines_of(file)) ==
          std::vector<std::string>{"stdout F one", "stdout F two", "stderr F three", "stdout F "});
}

TEST_CASE("CRI log: a line that comes in pieces is written once it is whole") {
    const ScopedFd file = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(file));
    sink->write(Stream::kStdout, "he");
    sink->write(Stream::kStderr, "between\n");
    CHECK(untimed(lines_of(file)) == std::vector<std::string>{"stderr F between"});
    sink->write(Stream::kStdout, "llo\nnext");
    CHECK(untimed(lines_of(file)) ==
          std::vector<std::string>{"stderr F between", "stdout F hello"});
}

TEST_CASE("CRI log: the end of a stream writes what had no newline, as partial") {
    const ScopedFd file = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(file));
    {
        auto description = moat::kernel::make_cri_log_file(sink, Stream::kStdout);
        sink->write(Stream::kStdout, "no newline");
        CHECK(lines_of(file).empty());
    }
    CHECK(untimed(lines_of(file)) == std::vector<std::string>{"stdout P no newline"});
    sink->end(Stream::kStdout);
    CHECK(lines_of(file).size() == 1);
}

TEST_CASE("CRI log: a line beyond 16 KiB comes in partial pieces that join to it") {
    const ScopedFd file = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(file));
    std::string line;
    for (int i = 0; line.size() < 40'000; i++) {
        line += std::to_string(i) + " ";
    }
    for (size_t at = 0; at < line.size(); at += 1000) {
        sink->write(Stream::kStdout, std::string_view(line).substr(at, 1000));
    }
    sink->write(Stream::kStdout, "\n");
    std::string joined;
    const auto lines = untimed(lines_of(file));
    REQUIRE(lines.size() == 3);
    for (size_t i = 0; i < lines.size(); i++) {
        CHECK(lines[i].substr(0, 9) == (i + 1 < lines.size() ? "stdout P " : "stdout F "));
        CHECK(lines[i].size() - 9 <= CriLogSink::kLongestLine);
        joined += lines[i].substr(9);
    }
    CHECK(joined == line);
}

TEST_CASE("CRI log: a line of exactly 16 KiB is whole") {
    const ScopedFd file = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(file));
    const std::string line(CriLogSink::kLongestLine, 'x');
    sink->write(Stream::kStdout, line + "\nafter\n");
    CHECK(untimed(lines_of(file)) ==
          std::vector<std::string>{"stdout F " + line, "stdout F after"});
}

TEST_CASE("CRI log: reopen goes on in the new file without losing or tearing a line") {
    const ScopedFd before = memory_file();
    const ScopedFd after = memory_file();
    auto sink = moat::make_ref<CriLogSink>(another(before));
    sink->write(Stream::kStdout, "first\nbeg");
    sink->reopen(another(after));
    sink->write(Stream::kStdout, "un\nlast\n");
    CHECK(untimed(lines_of(before)) == std::vector<std::string>{"stdout F first"});
    CHECK(untimed(lines_of(after)) == std::vector<std::string>{"stdout F begun", "stdout F last"});
}

TEST_CASE("CRI log: lines of writers at once stay whole, also while it is reopened") {
    std::vector<ScopedFd> files;
    files.push_back(memory_file());
    auto sink = moat::make_ref<CriLogSink>(another(files.back()));
    constexpr int kLines = 2000;
    auto write_all = [&](Stream stream) {
        for (int i = 0; i < kLines; i++) {
            sink->write(stream, "line " + std::to_string(i));
            sink->write(stream, " end\n");
        }
    };
    std::thread out(write_all, Stream::kStdout);
    std::thread err(write_all, Stream::kStderr);
    for (int i = 0; i < 20; i++) {
        files.push_back(memory_file());
        sink->reopen(another(files.back()));
        std::this_thread::yield();
    }
    out.join();
    err.join();
    int next[2] = {0, 0};
    for (const ScopedFd& file : files) {
        for (const std::string& line : untimed(lines_of(file))) {
            int& n = next[line.starts_with("stderr")];
            CHECK(line.substr(9) == "line " + std::to_string(n) + " end");
            n++;
        }
    }
    CHECK(next[0] == kLines);
    CHECK(next[1] == kLines);
}

TEST_CASE("CRI log: a full disk is counted and does not stop the writer") {
    auto sink = moat::make_ref<CriLogSink>(ScopedFd(open("/dev/full", O_WRONLY | O_CLOEXEC)));
    sink->write(Stream::kStdout, "lost\n");
    CHECK(sink->dropped_bytes() > 0);
    const ScopedFd file = memory_file();
    sink->reopen(another(file));
    sink->write(Stream::kStdout, "kept\n");
    CHECK(untimed(lines_of(file)) == std::vector<std::string>{"stdout F kept"});
}

TEST_CASE("CRI log: a full file loses whole lines, and goes on when there is room") {
    char path[] = "/tmp/cri-log-XXXXXX";
    const ScopedFd file(mkstemp(path));
    REQUIRE(file);
    unlink(path);
    fcntl(file.get(), F_SETFL, O_APPEND);
    // A limit of the process stands for the disk: a write stops at it, the next one fails.
    signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto room = [&](rlim_t bytes) {
        const rlimit limit{bytes, before.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    };
    auto sink = moat::make_ref<CriLogSink>(another(file));
    sink->write(Stream::kStdout, "first\n");
    const auto line = static_cast<rlim_t>(lseek(file.get(), 0, SEEK_END));
    room(2 * line + 7);
    sink->write(Stream::kStdout, "2econd\ncutcut\nlost 1\n");
    CHECK(sink->dropped_bytes() > 0);
    sink->write(Stream::kStderr, "lost 2\n");
    room(before.rlim_cur);
    sink->write(Stream::kStdout, "again\n");
    const auto lines = untimed(lines_of(file));
    CHECK(lines == std::vector<std::string>{"stdout F first", "stdout F 2econd", "stdout F cutcut",
                                            "stdout F again"});
    // What is cut when the file changes belongs to the old one.
    room(static_cast<rlim_t>(lseek(file.get(), 0, SEEK_END)) + 3);
    sink->write(Stream::kStdout, "torn\n");
    room(before.rlim_cur);
    const ScopedFd next = memory_file();
    sink->reopen(another(next));
    sink->write(Stream::kStdout, "new\n");
    CHECK(untimed(lines_of(file)).back() == "stdout F torn");
    CHECK(untimed(lines_of(next)) == std::vector<std::string>{"stdout F new"});
}
