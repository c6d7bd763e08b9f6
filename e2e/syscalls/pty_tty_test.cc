// Pseudo-terminals: line discipline, controlling terminal, window size, job control signals.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// A master and its slave, neither of which is anybody's controlling terminal.
class Pty {
  public:
    Pty() {
        master_.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
        if (!master_.valid()) {
            fatal("open /dev/ptmx: " + errno_name(errno));
        }
        int unlock = 0;
        if (::ioctl(master_.get(), TIOCSPTLCK, &unlock) != 0 ||
            ::ioctl(master_.get(), TIOCGPTN, &number_) != 0) {
            fatal("unlock the pty: " + errno_name(errno));
        }
        slave_.reset(::open(name().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
        if (!slave_.valid()) {
            fatal("open " + name() + ": " + errno_name(errno));
        }
    }
    std::string name() const { return "/dev/pts/" + std::to_string(number_); }
    int master() const { return master_.get(); }
    int slave() const { return slave_.get(); }
    void close_master() { master_.reset(); }
    void close_slave() { slave_.reset(); }

    void type(const std::string& text) const {
        if (!write_all(master(), text)) {
            fatal("write to the master: " + errno_name(errno));
        }
    }
    /// What the slave's side wrote or the echo: exactly n bytes.
    std::string screen(size_t n) const { return read_exactly(master(), n); }

    void change(const std::function<void(termios&)>& edit) const {
        termios settings;
        if (::tcgetattr(slave(), &settings) != 0) {
            fatal("tcgetattr: " + errno_name(errno));
        }
        edit(settings);
        if (::tcsetattr(slave(), TCSANOW, &settings) != 0) {
            fatal("tcsetattr: " + errno_name(errno));
        }
    }
    void no_echo() const {
        change([](termios& t) { t.c_lflag &= ~static_cast<tcflag_t>(ECHO); });
    }
    void raw() const {
        change([](termios& t) { ::cfmakeraw(&t); });
    }

  private:
    FileDescriptor master_, slave_;
    int number_ = -1;
};

/// Whether a descriptor has input now.
bool has_input(int fd) {
    pollfd entry{fd, POLLIN, 0};
    return ::poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN);
}
/// Waits until it has.
bool wait_for_input(int fd) {
    pollfd entry{fd, POLLIN, 0};
    return ::poll(&entry, 1, kPatienceSeconds * 1000) == 1;
}

/// Runs a body as leader of a new session whose controlling terminal is the slave.
std::function<void()> on_terminal(const Pty& pty, std::function<void()> body) {
    return [&pty, body = std::move(body)] {
        CHILD_CHECK(::setsid() == ::getpid());
        CHILD_THAT(::ioctl(pty.slave(), TIOCSCTTY, 0), succeeds());
        body();
    };
}

volatile sig_atomic_t last_signal = 0;
void note(int signal) { last_signal = signal; }

TEST_CASE("pty: the slave is a character device with its number, and both sides are terminals") {
    Pty pty;
    struct stat st;
    REQUIRE_THAT(::fstat(pty.slave(), &st), succeeds());
    CHECK(S_ISCHR(st.st_mode));
    CHECK((st.st_rdev >> 8) == 136);
    CHECK(::isatty(pty.slave()) == 1);
    CHECK(::isatty(pty.master()) == 1);
    struct stat by_name;
    REQUIRE_THAT(::stat(pty.name().c_str(), &by_name), succeeds());
    CHECK(by_name.st_ino == st.st_ino);
}

TEST_CASE("pty: a locked slave cannot be opened") {
    const FileDescriptor master(::open("/dev/ptmx", O_RDWR | O_NOCTTY));
    REQUIRE(master.valid());
    int number = -1;
    REQUIRE_THAT(::ioctl(master.get(), TIOCGPTN, &number), succeeds());
    const std::string name = "/dev/pts/" + std::to_string(number);
    CHECK_THAT(::open(name.c_str(), O_RDWR | O_NOCTTY), fails_with(EIO));
}

TEST_CASE("pty: numbers are given back when the master closes") {
    std::string name;
    {
        Pty pty;
        name = pty.name();
        CHECK_THAT(::access(name.c_str(), F_OK), succeeds());
    }
    CHECK_THAT(::access(name.c_str(), F_OK), fails_with(ENOENT));
}

TEST_CASE("canonical: a line is readable when it is complete") {
    Pty pty;
    pty.no_echo();
    pty.type("half");
    CHECK(!has_input(pty.slave()));
    pty.type(" line\nnext");
    REQUIRE(wait_for_input(pty.slave()));
    FencedBuffer buffer(100);
    CHECK_THAT(::read(pty.slave(), buffer.data(), 100), succeeds_with(10));
    CHECK(std::string(buffer.data(), 10) == "half line\n");
    CHECK(buffer.untouched_from(10));
    CHECK(!has_input(pty.slave()));
}

TEST_CASE("canonical: a short read leaves the rest of the line") {
    Pty pty;
    pty.no_echo();
    pty.type("abcdef\n");
    char buffer[16];
    CHECK_THAT(::read(pty.slave(), buffer, 2), succeeds_with(2));
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(5));
    CHECK(std::string(buffer, 5) == "cdef\n");
}

TEST_CASE("canonical: two lines need two reads") {
    Pty pty;
    pty.no_echo();
    pty.type("1\n2\n");
    char buffer[16];
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(2));
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(2));
}

TEST_CASE("canonical: VERASE, VWERASE and VKILL edit the line") {
    Pty pty;
    pty.no_echo();
    char buffer[64];
    pty.type(
        "abx\x7f"
        "c\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(4));
    CHECK(std::string(buffer, 4) == "abc\n");
    pty.type(
        "one two \x17"
        "2\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(6));
    CHECK(std::string(buffer, 6) == "one 2\n");
    pty.type("thrown away\x15kept\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(5));
    CHECK(std::string(buffer, 5) == "kept\n");
    pty.type("\x7f\x7fok\n");  // nothing to erase
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(3));
}

TEST_CASE("canonical: VEOF on an empty line is an end of file, behind text it pushes the text") {
    Pty pty;
    pty.no_echo();
    char buffer[16];
    pty.type("\x04");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(0));
    pty.type("push\x04");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(4));
    pty.type("more\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(5));
}

TEST_CASE("canonical: VLNEXT takes the next character literally") {
    Pty pty;
    pty.no_echo();
    pty.type(
        "a\x16\x7f"
        "b\n");
    char buffer[16];
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(4));
    CHECK(std::string(buffer, 4) ==
          "a\x7f"
          "b\n");
}

TEST_CASE("canonical: a line longer than the buffer is cut, the newline still ends it") {
    Pty pty;
    pty.no_echo();
    pty.type(std::string(3000, 'x'));
    pty.type(std::string(3000, 'y') + "\n");
    char buffer[8192];
    const ssize_t n = ::read(pty.slave(), buffer, sizeof buffer);
    CHECK(n == 4096);
    CHECK(buffer[n - 1] == '\n');
}

TEST_CASE("input: ICRNL turns carriage returns into newlines, IGNCR drops them, INLCR reverses") {
    Pty pty;
    pty.no_echo();
    char buffer[16];
    pty.type("a\r");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(2));
    CHECK(buffer[1] == '\n');
    pty.change([](termios& t) { t.c_iflag |= IGNCR; });
    pty.type("b\r\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(2));
    CHECK(std::string(buffer, 2) == "b\n");
    pty.raw();
    pty.change([](termios& t) { t.c_iflag |= INLCR; });
    pty.type("c\n");
    CHECK(read_exactly(pty.slave(), 2) == "c\r");
}

TEST_CASE("echo: typed text appears, control characters as ^X, erase as backspaces") {
    Pty pty;
    pty.type("ab");
    CHECK(pty.screen(2) == "ab");
    pty.type("\x7f");
    CHECK(pty.screen(3) == "\b \b");
    pty.type("\x01");
    CHECK(pty.screen(2) == "^A");
    pty.type("\n");
    CHECK(pty.screen(2) == "\r\n");
}

TEST_CASE("echo: off means nothing appears, ECHONL alone shows the newline") {
    Pty pty;
    pty.change([](termios& t) {
        t.c_lflag &= ~static_cast<tcflag_t>(ECHO);
        t.c_lflag |= ECHONL;
    });
    pty.type("secret\n");
    CHECK(pty.screen(2) == "\r\n");
    CHECK(!has_input(pty.master()));
}

TEST_CASE("output: ONLCR adds carriage returns, without OPOST nothing changes") {
    Pty pty;
    REQUIRE(write_all(pty.slave(), "one\ntwo"));
    CHECK(pty.screen(8) == "one\r\ntwo");
    pty.change([](termios& t) { t.c_oflag &= ~static_cast<tcflag_t>(OPOST); });
    REQUIRE(write_all(pty.slave(), "x\ny"));
    CHECK(pty.screen(3) == "x\ny");
}

TEST_CASE("raw: single bytes come through at once and unchanged") {
    Pty pty;
    pty.raw();
    const std::string all = "\x03\x04\x1a\x7f\r\n\x16z";
    pty.type(all);
    CHECK(read_exactly(pty.slave(), all.size()) == all);
}

TEST_CASE("raw: VMIN bytes are waited for, VMIN 0 and VTIME 0 return at once") {
    Pty pty;
    pty.raw();
    pty.change([](termios& t) {
        t.c_cc[VMIN] = 0;
        t.c_cc[VTIME] = 0;
    });
    char buffer[16];
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(0));
    pty.change([](termios& t) {
        t.c_cc[VMIN] = 3;
        t.c_cc[VTIME] = 0;
    });
    pty.type("ab");
    ssize_t n = 0;
    Thread reader([&] { n = ::read(pty.slave(), buffer, sizeof buffer); });
    wait_until_blocked(::getpid(), reader.tid());
    pty.type("c");
    reader.join();
    CHECK(n == 3);
}

TEST_CASE("raw: VTIME alone ends a read without input") {
    Pty pty;
    pty.raw();
    pty.change([](termios& t) {
        t.c_cc[VMIN] = 0;
        t.c_cc[VTIME] = 1;
    });
    char c;
    CHECK_THAT(::read(pty.slave(), &c, 1), succeeds_with(0));
}

TEST_CASE("tty: a non-blocking read without a line fails with EAGAIN") {
    Pty pty;
    const FileDescriptor slave = open_file(pty.name(), O_RDWR | O_NOCTTY | O_NONBLOCK);
    char c;
    CHECK_THAT(::read(slave.get(), &c, 1), fails_with(EAGAIN));
}

TEST_CASE("tty: settings are read back as they were set, and are the same on both sides") {
    Pty pty;
    pty.change([](termios& t) {
        t.c_cc[VINTR] = 'q';
        t.c_lflag |= NOFLSH;
        ::cfsetospeed(&t, B9600);
    });
    termios settings;
    REQUIRE_THAT(::tcgetattr(pty.master(), &settings), succeeds());
    CHECK(settings.c_cc[VINTR] == 'q');
    CHECK((settings.c_lflag & NOFLSH) != 0);
    CHECK(::cfgetospeed(&settings) == B9600);
}

TEST_CASE("tty: the defaults are those of a fresh Linux terminal") {
    Pty pty;
    termios t;
    REQUIRE_THAT(::tcgetattr(pty.slave(), &t), succeeds());
    CHECK((t.c_iflag & (ICRNL | IXON)) == (ICRNL | IXON));
    CHECK((t.c_oflag & (OPOST | ONLCR)) == (OPOST | ONLCR));
    CHECK((t.c_lflag & (ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN)) ==
          (ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN));
    CHECK(t.c_cc[VINTR] == 3);
    CHECK(t.c_cc[VQUIT] == 28);
    CHECK(t.c_cc[VEOF] == 4);
    CHECK(t.c_cc[VSUSP] == 26);
    CHECK(t.c_cc[VERASE] == 0x7f);
    CHECK(t.c_cc[VMIN] == 1);
}

TEST_CASE("tty: switching to raw makes a half-typed line readable") {
    Pty pty;
    pty.no_echo();
    pty.type("half");
    CHECK(!has_input(pty.slave()));
    pty.raw();
    REQUIRE(wait_for_input(pty.slave()));
    CHECK(read_exactly(pty.slave(), 4) == "half");
}

TEST_CASE("tty: TCSAFLUSH and TCFLSH throw unread input away") {
    Pty pty;
    pty.no_echo();
    pty.type("line\n");
    REQUIRE(wait_for_input(pty.slave()));
    REQUIRE_THAT(::tcflush(pty.slave(), TCIFLUSH), succeeds());
    CHECK(!has_input(pty.slave()));
    pty.type("line\n");
    REQUIRE(wait_for_input(pty.slave()));
    termios t;
    REQUIRE_THAT(::tcgetattr(pty.slave(), &t), succeeds());
    REQUIRE_THAT(::tcsetattr(pty.slave(), TCSAFLUSH, &t), succeeds());
    CHECK(!has_input(pty.slave()));
}

TEST_CASE("tty: FIONREAD counts complete lines in canonical mode") {
    Pty pty;
    pty.no_echo();
    int n = -1;
    pty.type("abc\n");
    REQUIRE(wait_for_input(pty.slave()));
    REQUIRE_THAT(::ioctl(pty.slave(), FIONREAD, &n), succeeds());
    CHECK(n == 4);
}

TEST_CASE("tty: calls on what is no terminal fail with ENOTTY") {
    Pipe pipe;
    termios t;
    winsize w;
    CHECK_THAT(::tcgetattr(pipe.read_end.get(), &t), fails_with(ENOTTY));
    CHECK_THAT(::ioctl(pipe.read_end.get(), TIOCGWINSZ, &w), fails_with(ENOTTY));
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f"), O_RDWR);
    CHECK_THAT(::ioctl(fd.get(), TIOCGPGRP, &w), fails_with(ENOTTY));
}

TEST_CASE("tty: bad pointers fail with EFAULT") {
    Pty pty;
    CHECK_THAT(::ioctl(pty.slave(), TCGETS, bad<void>()), fails_with(EFAULT));
    CHECK_THAT(::ioctl(pty.slave(), TCSETS, bad<void>()), fails_with(EFAULT));
    CHECK_THAT(::ioctl(pty.slave(), TIOCGWINSZ, bad<void>()), fails_with(EFAULT));
    CHECK_THAT(::read(pty.master(), bad<void>(), 0), succeeds_with(0));
}

TEST_CASE("winsize: one side sets, the other reads, and both may set") {
    Pty pty;
    winsize size{24, 80, 1, 2};
    REQUIRE_THAT(::ioctl(pty.master(), TIOCSWINSZ, &size), succeeds());
    Fenced<winsize> got;
    REQUIRE_THAT(::ioctl(pty.slave(), TIOCGWINSZ, got.get()), succeeds());
    CHECK(got->ws_row == 24);
    CHECK(got->ws_col == 80);
    CHECK(got.intact());
}

TEST_CASE("winsize: a change sends SIGWINCH to the foreground group, the same size does not") {
    Pty pty;
    Gate ready, changed;
    Child child(on_terminal(pty, [&] {
        ::signal(SIGWINCH, note);
        sigset_t set, old;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGWINCH);
        ::sigprocmask(SIG_BLOCK, &set, &old);
        ready.open();
        changed.wait();
        sigset_t pending;
        ::sigpending(&pending);
        CHILD_CHECK(!::sigismember(&pending, SIGWINCH));
        ready.open();
        ::sigsuspend(&old);
        CHILD_CHECK(last_signal == SIGWINCH);
    }));
    ready.wait();
    winsize size;
    REQUIRE_THAT(::ioctl(pty.master(), TIOCGWINSZ, &size), succeeds());
    REQUIRE_THAT(::ioctl(pty.master(), TIOCSWINSZ, &size), succeeds());
    changed.open();
    ready.wait();
    size.ws_row = 50;
    REQUIRE_THAT(::ioctl(pty.master(), TIOCSWINSZ, &size), succeeds());
    CHECK(child.wait() == exited(0));
}

TEST_CASE("isig: VINTR, VQUIT and VSUSP signal the foreground group") {
    const struct {
        const char* key;
        int signal;
    } keys[] = {{"\x03", SIGINT}, {"\x1c", SIGQUIT}, {"\x1a", SIGTSTP}};
    for (const auto& key : keys) {
        CAPTURE(key.signal);
        Pty pty;
        Gate ready;
        Child child(on_terminal(pty, [&] {
            ::signal(key.signal, note);
            sigset_t set, old;
            ::sigemptyset(&set);
            ::sigaddset(&set, key.signal);
            ::sigprocmask(SIG_BLOCK, &set, &old);
            ready.open();
            ::sigsuspend(&old);
            CHILD_CHECK(last_signal == key.signal);
        }));
        ready.wait();
        pty.type(key.key);
        CHECK(child.wait() == exited(0));
        CHECK(pty.screen(2)[0] == '^');  // ECHOCTL
    }
}

TEST_CASE("isig: VINTR throws the typed line away unless NOFLSH") {
    Pty pty;
    pty.no_echo();
    char buffer[32];
    pty.type("gone\x03kept\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(5));
    CHECK(std::string(buffer, 5) == "kept\n");
    pty.change([](termios& t) { t.c_lflag |= NOFLSH; });
    pty.type("still\x03here\n");
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(10));
}

TEST_CASE("isig: off means that ^C is an ordinary character") {
    Pty pty;
    pty.no_echo();
    pty.change([](termios& t) { t.c_lflag &= ~static_cast<tcflag_t>(ISIG); });
    pty.type("a\x03\n");
    char buffer[8];
    CHECK_THAT(::read(pty.slave(), buffer, sizeof buffer), succeeds_with(3));
    CHECK(buffer[1] == 3);
}

TEST_CASE("controlling terminal: /dev/tty is it, TIOCNOTTY gives it up") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        const FileDescriptor tty(::open("/dev/tty", O_RDWR));
        CHILD_CHECK(tty.valid());
        CHILD_CHECK(write_all(tty.get(), "hello"));
        CHILD_CHECK(pty.screen(5) == "hello");
        CHILD_CHECK(::tcgetsid(pty.slave()) == ::getpid());
        ::signal(SIGHUP, SIG_IGN);
        CHILD_THAT(::ioctl(tty.get(), TIOCNOTTY, 0), succeeds());
        CHILD_THAT(::open("/dev/tty", O_RDWR), fails_with(ENXIO));
    }));
}

TEST_CASE(
    "controlling terminal: the first terminal a session leader opens becomes it, not with "
    "O_NOCTTY") {
    Pty pty;
    in_child([&] {
        CHILD_CHECK(::setsid() == ::getpid());
        {
            const FileDescriptor no = open_file(pty.name(), O_RDWR | O_NOCTTY);
            CHILD_THAT(::open("/dev/tty", O_RDWR), fails_with(ENXIO));
        }
        const FileDescriptor yes = open_file(pty.name(), O_RDWR);
        CHILD_THAT(::open("/dev/tty", O_RDWR), succeeds());
        CHILD_CHECK(::tcgetpgrp(yes.get()) == ::getpid());
    });
}

TEST_CASE("controlling terminal: one session at a time, and only leaders") {
    Pty pty;
    Gate taken, end;
    Child owner(on_terminal(pty, [&] {
        taken.open();
        end.wait();
    }));
    taken.wait();
    in_child([&] {
        CHILD_CHECK(::setsid() == ::getpid());
        CHILD_THAT(::ioctl(pty.slave(), TIOCSCTTY, 0), fails_with(EPERM));
    });
    in_child([&] { CHILD_THAT(::ioctl(pty.slave(), TIOCSCTTY, 0), fails_with(EPERM)); });
    end.open();
    CHECK(owner.wait() == exited(0));
}

TEST_CASE("foreground: a shell hands the terminal to a job and takes it back") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        CHILD_CHECK(::tcgetpgrp(pty.slave()) == ::getpgrp());
        ::signal(SIGTTOU, SIG_IGN);
        Gate go;
        Child job([&] {
            ::setpgid(0, 0);
            go.wait();
            char line[16];
            CHILD_THAT(::read(pty.slave(), line, sizeof line), succeeds_with(4));
        });
        ::setpgid(job.pid(), job.pid());
        CHILD_THAT(::tcsetpgrp(pty.slave(), job.pid()), succeeds());
        CHILD_CHECK(::tcgetpgrp(pty.slave()) == job.pid());
        go.open();
        pty.type("job\n");
        CHILD_CHECK(job.wait() == exited(0));
        CHILD_THAT(::tcsetpgrp(pty.slave(), ::getpgrp()), succeeds());
    }));
}

TEST_CASE("foreground: groups of other sessions and of nobody are refused") {
    Pty pty;
    Gate made;
    Child other_session([&] {
        ::setsid();
        made.open();
        ::pause();
    });
    made.wait();
    const pid_t foreign = other_session.pid();
    in_child(on_terminal(pty, [&] {
        CHILD_THAT(::tcsetpgrp(pty.slave(), foreign), fails_with(EPERM));
        CHILD_THAT(::tcsetpgrp(pty.slave(), 0x7ffffff), fails_with(ESRCH));
        int negative = -5;
        CHILD_THAT(::ioctl(pty.slave(), TIOCSPGRP, &negative), fails_with(EINVAL));
    }));
    CHECK_THAT(::tcgetpgrp(pty.slave()), fails_with(ENOTTY));
}

TEST_CASE("background: reading stops with SIGTTIN, and goes on in the foreground") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        ::signal(SIGTTOU, SIG_IGN);
        Child job([&] {
            ::setpgid(0, 0);
            ::signal(SIGTTOU, SIG_DFL);
            char line[16];
            CHILD_THAT(::read(pty.slave(), line, sizeof line), succeeds_with(3));
        });
        CHILD_CHECK(job.wait(WUNTRACED) == stopped(SIGTTIN));
        CHILD_THAT(::tcsetpgrp(pty.slave(), job.pid()), succeeds());
        CHILD_THAT(::kill(-job.pid(), SIGCONT), succeeds());
        pty.type("go\n");
        CHILD_CHECK(job.wait() == exited(0));
    }));
}

TEST_CASE("background: reading fails with EIO when SIGTTIN is ignored") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        Child job([&] {
            ::setpgid(0, 0);
            ::signal(SIGTTIN, SIG_IGN);
            char c;
            CHILD_THAT(::read(pty.slave(), &c, 1), fails_with(EIO));
        });
        CHILD_CHECK(job.wait() == exited(0));
    }));
}

TEST_CASE("background: writing is free without TOSTOP and stops with it") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        Child free_writer([&] {
            ::setpgid(0, 0);
            CHILD_THAT(::write(pty.slave(), "x", 1), succeeds_with(1));
        });
        CHILD_CHECK(free_writer.wait() == exited(0));
        pty.change([](termios& t) { t.c_lflag |= TOSTOP; });
        Child writer([&] {
            ::setpgid(0, 0);
            (void)::write(pty.slave(), "y", 1);
        });
        CHILD_CHECK(writer.wait(WUNTRACED) == stopped(SIGTTOU));
    }));
}

TEST_CASE("background: changing settings or the foreground group stops with SIGTTOU") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        Child setter([&] {
            ::setpgid(0, 0);
            termios t;
            ::tcgetattr(pty.slave(), &t);  // reading is free
            ::tcsetattr(pty.slave(), TCSANOW, &t);
        });
        CHILD_CHECK(setter.wait(WUNTRACED) == stopped(SIGTTOU));
        Child thief([&] {
            ::setpgid(0, 0);
            ::tcsetpgrp(pty.slave(), ::getpgrp());
        });
        CHILD_CHECK(thief.wait(WUNTRACED) == stopped(SIGTTOU));
    }));
}

TEST_CASE("background: a process that blocks SIGTTOU may take the terminal") {
    Pty pty;
    in_child(on_terminal(pty, [&] {
        Child job([&] {
            ::setpgid(0, 0);
            sigset_t set;
            ::sigemptyset(&set);
            ::sigaddset(&set, SIGTTOU);
            ::sigprocmask(SIG_BLOCK, &set, nullptr);
            CHILD_THAT(::tcsetpgrp(pty.slave(), ::getpgrp()), succeeds());
            CHILD_CHECK(::tcgetpgrp(pty.slave()) == ::getpgrp());
        });
        CHILD_CHECK(job.wait() == exited(0));
    }));
}

TEST_CASE("hang-up: the master's end sends SIGHUP to the session leader, reads end, writes fail") {
    auto pty = std::make_unique<Pty>();
    Gate ready;
    Child child([&] {
        CHILD_CHECK(::setsid() == ::getpid());
        const FileDescriptor slave = open_file(pty->name(), O_RDWR);
        pty->close_slave();
        pty->close_master();
        ::signal(SIGHUP, note);
        sigset_t set, old;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGHUP);
        ::sigprocmask(SIG_BLOCK, &set, &old);
        ready.open();
        ::sigsuspend(&old);
        CHILD_CHECK(last_signal == SIGHUP);
        char c;
        CHILD_THAT(::read(slave.get(), &c, 1), succeeds_with(0));
        CHILD_THAT(::write(slave.get(), "x", 1), fails_with(EIO));
        pollfd entry{slave.get(), POLLIN, 0};
        CHILD_THAT(::poll(&entry, 1, 0), succeeds_with(1));
        CHILD_CHECK(entry.revents & POLLHUP);
    });
    ready.wait();
    pty.reset();
    CHECK(child.wait() == exited(0));
}

TEST_CASE("hang-up: the session leader's exit sends SIGHUP and SIGCONT to the foreground group") {
    Pty pty;
    Pipe report;
    Gate ready;
    Child leader(on_terminal(pty, [&] {
        ::signal(SIGTTOU, SIG_IGN);
        const pid_t job = ::fork();
        if (job == 0) {
            ::setpgid(0, 0);
            CHILD_THAT(::tcsetpgrp(pty.slave(), ::getpid()), succeeds());
            ::signal(SIGHUP, note);
            sigset_t set, old;
            ::sigemptyset(&set);
            ::sigaddset(&set, SIGHUP);
            ::sigprocmask(SIG_BLOCK, &set, &old);
            ready.open();
            ::sigsuspend(&old);
            write_all(report.write_end.get(), last_signal == SIGHUP ? "hup" : "other");
            ::_exit(0);
        }
        ready.wait();
    }));
    CHECK(leader.wait() == exited(0));
    report.write_end.reset();
    CHECK(read_all(report.read_end.get()) == "hup");
}

TEST_CASE("hang-up: the master reads what was written and then EIO once the last slave closes") {
    Pty pty;
    REQUIRE(write_all(pty.slave(), "last words"));
    pty.close_slave();
    CHECK(pty.screen(10) == "last words");
    char c;
    CHECK_THAT(::read(pty.master(), &c, 1), fails_with(EIO));
    pollfd entry{pty.master(), POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK((entry.revents & POLLHUP) != 0);
}

TEST_CASE("flow control: VSTOP holds the output, VSTART lets it go") {
    Pty pty;
    pty.type("\x13");
    Gate started;
    Child writer([&] {
        started.open();
        CHILD_CHECK(write_all(pty.slave(), "held"));
    });
    started.wait();
    wait_until_blocked(writer.pid());
    CHECK(!has_input(pty.master()));
    pty.type("\x11");
    CHECK(pty.screen(4) == "held");
    CHECK(writer.wait() == exited(0));
}

TEST_CASE("packet mode: the master's reads begin with a status byte") {
    Pty pty;
    int on = 1;
    REQUIRE_THAT(::ioctl(pty.master(), TIOCPKT, &on), succeeds());
    REQUIRE(write_all(pty.slave(), "data"));
    char buffer[16];
    CHECK_THAT(::read(pty.master(), buffer, sizeof buffer), succeeds_with(5));
    CHECK(buffer[0] == TIOCPKT_DATA);
    CHECK(std::string(buffer + 1, 4) == "data");
}

}  // namespace
