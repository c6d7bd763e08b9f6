#include "kernel/fs/tty/line_discipline.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <termios.h>

#include <random>

using moat::kernel::LineDiscipline;
using moat::kernel::Termios;

namespace {

/// A terminal with somebody at each side.
struct Terminal {
    LineDiscipline discipline;
    std::vector<int> signals;

    void type(std::string_view text) { discipline.receive(text, signals); }
    std::string shown() {
        std::string text(1 << 20, '\0');
        text.resize(discipline.take_output(text.data(), text.size()));
        return text;
    }
    std::string read(size_t size = 4096) {
        std::string text(size, '\0');
        text.resize(discipline.read(text.data(), size));
        return text;
    }
    template <typename F>
    void change(F edit) {
        Termios t = discipline.termios();
        edit(t);
        discipline.set_termios(t);
    }
    void make_raw() {
        change([](Termios& t) {
            t.iflag = 0;
            t.oflag = 0;
            t.lflag = 0;
        });
    }
};

}  // namespace

TEST_CASE("line discipline: a line can be read only when it is whole, and comes alone") {
    Terminal t;
    t.type("hel");
    CHECK(!t.discipline.read_ready());
    CHECK(t.read() == "");
    t.type("lo\rsecond\r");
    CHECK(t.discipline.read_ready());
    CHECK(t.discipline.readable_bytes() == 13);
    CHECK(t.read() == "hello\n");
    CHECK(t.read() == "second\n");
    CHECK(!t.discipline.read_ready());
}

TEST_CASE("line discipline: a short read leaves the rest of the line") {
    Terminal t;
    t.type("abcdef\n");
    CHECK(t.read(4) == "abcd");
    CHECK(t.read(4) == "ef\n");
    CHECK(!t.discipline.read_ready());
}

TEST_CASE("line discipline: what is typed is echoed, a newline as two characters") {
    Terminal t;
    t.type("a\tb\r");
    CHECK(t.shown() == "a\tb\r\n");
    t.change([](Termios& x) { x.lflag &= ~static_cast<uint32_t>(ECHO); });
    t.type("secret\n");
    CHECK(t.shown() == "");
    t.change([](Termios& x) { x.lflag |= ECHONL; });
    t.type("secret\n");
    CHECK(t.shown() == "\r\n");
}

TEST_CASE("line discipline: control characters are echoed with a caret") {
    Terminal t;
    t.type("\x01");
    CHECK(t.shown() == "^A");
    t.change([](Termios& x) { x.lflag &= ~static_cast<uint32_t>(ECHOCTL); });
    t.type("\x01");
    CHECK(t.shown() == "\x01");
}

TEST_CASE("line discipline: VERASE takes back one character, on the screen too") {
    Terminal t;
    t.type("ab\x7f");
    CHECK(t.shown() == "ab\b \b");
    t.type("c\n");
    CHECK(t.read() == "ac\n");
    t.type("\x7f\x7f");  // nothing to take back, and the line before is not ours any more
    t.type("x\x01\x7f\n");
    CHECK(t.read() == "x\n");
    CHECK(t.shown().find("^A\b \b\b \b") != std::string::npos);
}

TEST_CASE("line discipline: VERASE takes back a whole character of UTF-8 when IUTF8 says so") {
    Terminal t;
    t.change([](Termios& x) { x.iflag |= IUTF8; });
    t.type("a\xc3\xa4\x7f\n");
    CHECK(t.read() == "a\n");
    t.change([](Termios& x) { x.iflag &= ~static_cast<uint32_t>(IUTF8); });
    t.type("a\xc3\xa4\x7f\n");
    CHECK(t.read() == "a\xc3\n");
}

TEST_CASE("line discipline: erasing a tab moves back as far as it had moved forward") {
    Terminal t;
    t.type("abc\t");
    t.shown();
    t.type("\x7f");
    CHECK(t.shown() == "\b\b\b\b\b");
}

TEST_CASE("line discipline: VWERASE takes back a word, VKILL the line") {
    Terminal t;
    t.type("one two  \x17three\n");
    CHECK(t.read() == "one three\n");
    t.type("garbage\x15good\n");
    CHECK(t.read() == "good\n");
}

TEST_CASE("line discipline: VLNEXT makes the next character ordinary") {
    Terminal t;
    t.type(
        "a\x16\x03"
        "b\n");
    CHECK(t.signals.empty());
    CHECK(t.read() ==
          "a\x03"
          "b\n");
}

TEST_CASE("line discipline: VREPRINT shows the line again") {
    Terminal t;
    t.type("abc");
    t.shown();
    t.type("\x12");
    CHECK(t.shown() == "^R\r\nabc");
}

TEST_CASE("line discipline: VEOF ends a read without a byte of its own") {
    Terminal t;
    t.type("\x04");
    CHECK(t.discipline.read_ready());
    CHECK(t.read() == "");
    CHECK(!t.discipline.read_ready());
    t.type("part\x04");
    CHECK(t.read() == "part");
    CHECK(!t.discipline.read_ready());  // the end went with the text
    t.type("part\x04");
    CHECK(t.read(4) == "part");  // even when the buffer was just full
    CHECK(!t.discipline.read_ready());
}

TEST_CASE("line discipline: VEOL ends a line and stays in it") {
    Terminal t;
    t.change([](Termios& x) { x.cc[VEOL] = ';'; });
    t.type("a;b");
    CHECK(t.read() == "a;");
    CHECK(!t.discipline.read_ready());
}

TEST_CASE("line discipline: signal characters signal, flush, and are not read") {
    Terminal t;
    t.type("half a line\x03");
    CHECK(t.signals == std::vector<int>{SIGINT});
    CHECK(t.shown() == "^C");  // what was echoed before was flushed
    t.type("x\n");
    CHECK(t.read() == "x\n");
    t.type("\x1c\x1a");
    CHECK(t.signals == std::vector<int>{SIGINT, SIGQUIT, SIGTSTP});
}

TEST_CASE("line discipline: with NOFLSH a signal leaves the input alone") {
    Terminal t;
    t.change([](Termios& x) { x.lflag |= NOFLSH; });
    t.type(
        "ab\x03"
        "c\n");
    CHECK(t.signals == std::vector<int>{SIGINT});
    CHECK(t.read() == "abc\n");
}

TEST_CASE("line discipline: without ISIG signal characters are input") {
    Terminal t;
    t.change([](Termios& x) { x.lflag &= ~static_cast<uint32_t>(ISIG); });
    t.type("\x03\n");
    CHECK(t.signals.empty());
    CHECK(t.read() == "\x03\n");
}

TEST_CASE("line discipline: a disabled character does nothing") {
    Terminal t;
    t.change([](Termios& x) { x.cc[VINTR] = 0; });
    t.type(std::string_view("\0\x03\n", 3));
    CHECK(t.signals.empty());
    CHECK(t.read() == std::string("\0\x03\n", 3));
}

TEST_CASE("line discipline: IGNCR, ICRNL and INLCR decide what Enter is") {
    Terminal t;
    t.make_raw();
    t.type("\r\n");
    CHECK(t.read() == "\r\n");
    t.change([](Termios& x) { x.iflag = ICRNL; });
    t.type("\r");
    CHECK(t.read() == "\n");
    t.change([](Termios& x) { x.iflag = IGNCR; });
    t.type("a\rb");
    CHECK(t.read() == "ab");
    t.change([](Termios& x) { x.iflag = INLCR; });
    t.type("\n");
    CHECK(t.read() == "\r");
    t.change([](Termios& x) { x.iflag = ISTRIP; });
    t.type("\xe1");
    CHECK(t.read() == "a");
}

TEST_CASE("line discipline: XON and XOFF hold the output") {
    Terminal t;
    t.type("\x13");
    CHECK(t.discipline.stopped());
    CHECK(t.discipline.write_room() == 0);
    t.discipline.write("late");
    CHECK(t.shown() == "");
    CHECK(t.discipline.output_pending() == 4);
    t.type("\x11");
    CHECK(t.shown() == "late");
    t.type("\x13");
    t.change([](Termios& x) { x.iflag |= IXANY; });
    t.type("k");
    CHECK(!t.discipline.stopped());
}

TEST_CASE("line discipline: turning IXON off starts what was stopped") {
    Terminal t;
    t.type("\x13");
    t.make_raw();
    CHECK(!t.discipline.stopped());
}

TEST_CASE("line discipline: output is translated only with OPOST") {
    Terminal t;
    t.discipline.write("a\nb");
    CHECK(t.shown() == "a\r\nb");
    t.change([](Termios& x) { x.oflag |= TABDLY & XTABS; });
    t.discipline.write("\tc");
    CHECK(t.shown() == "       c");  // from column 1
    t.change([](Termios& x) { x.oflag = OPOST | OCRNL; });
    t.discipline.write("x\r");
    CHECK(t.shown() == "x\n");
    t.change([](Termios& x) { x.oflag = 0; });
    t.discipline.write("a\n\t");
    CHECK(t.shown() == "a\n\t");
}

TEST_CASE("line discipline: in raw mode every byte can be read at once") {
    Terminal t;
    t.make_raw();
    t.type("a");
    CHECK(t.discipline.read_ready());
    t.type("\x7f\x03\x04");
    CHECK(t.read() == "a\x7f\x03\x04");
    CHECK(t.signals.empty());
    CHECK(t.shown() == "");
}

TEST_CASE("line discipline: leaving canonical mode hands out the line being edited") {
    Terminal t;
    t.type("abc");
    t.make_raw();
    CHECK(t.read() == "abc");
}

TEST_CASE("line discipline: entering canonical mode leaves raw input readable") {
    Terminal t;
    const Termios cooked = t.discipline.termios();
    t.make_raw();
    t.type("abc");
    t.discipline.set_termios(cooked);
    CHECK(t.discipline.read_ready());
    CHECK(t.read() == "abc");
    t.type("x\n");
    CHECK(t.read() == "x\n");
}

TEST_CASE("line discipline: a line beyond its limit is cut, and can still be ended") {
    Terminal t;
    t.type(std::string(5000, 'a'));
    CHECK(t.discipline.receive_room() > 0);
    t.type("\n");
    const std::string line = t.read(8192);
    CHECK(line.size() == 4096);
    CHECK(line.back() == '\n');
    CHECK(t.discipline.receive_room() == 4095);
}

TEST_CASE("line discipline: the far side waits while nobody reads") {
    Terminal t;
    t.make_raw();
    size_t taken = 0;
    while (const size_t room = t.discipline.receive_room()) {
        t.type(std::string(room, 'x'));
        taken += room;
    }
    CHECK(taken == 4095);
    CHECK(t.read(100).size() == 100);
    CHECK(t.discipline.receive_room() == 100);
}

TEST_CASE("line discipline: ends of file that nobody reads make the far side wait too") {
    Terminal t;
    size_t typed = 0;
    while (t.discipline.receive_room() > 0 && typed < 100'000) {
        t.type("\x04");
        typed++;
    }
    CHECK(typed <= 4096);
}

TEST_CASE("line discipline: echo that nobody takes does not grow without bound") {
    Terminal t;
    for (int i = 0; i < 100; i++) {
        t.type(std::string(4000, '\x01') + "\x15");
    }
    CHECK(t.discipline.output_pending() < 200'000);
}

TEST_CASE("line discipline: any bytes under any settings keep its bounds") {
    const unsigned seed = std::random_device()();
    INFO("seed ", seed);
    std::mt19937 random(seed);
    Terminal t;
    for (int i = 0; i < 3000; i++) {
        if (i % 20 == 0) {
            t.change([&](Termios& x) {
                x.iflag = random();
                x.oflag = random();
                x.lflag = random();
                for (uint8_t& c : x.cc) {
                    c = static_cast<uint8_t>(random() % 64);
                }
            });
        }
        std::string bytes(std::min<size_t>(random() % 300, t.discipline.receive_room()), '\0');
        for (char& c : bytes) {
            c = static_cast<char>(random());
        }
        t.type(bytes);
        t.discipline.write(bytes.substr(0, t.discipline.write_room()));
        const size_t offered = t.discipline.readable_bytes();
        const size_t got = t.read(random() % 500).size();
        CHECK(got <= offered);
        if (random() % 4 == 0) {
            t.shown();
        }
        REQUIRE(t.discipline.readable_bytes() <= 4500);
        REQUIRE(t.discipline.output_pending() < 200'000);
    }
}
