#include "kernel/fs/tty/line_discipline.h"

#include <signal.h>
#include <string.h>
#include <termios.h>

#include <algorithm>

namespace moat::kernel {

namespace {

constexpr size_t kInputSize = 4096;  // N_TTY_BUF_SIZE; a line is at most one byte shorter
constexpr size_t kOutputSize = 8192;
constexpr size_t kEchoLimit = 16 * kOutputSize;  // echo nobody reads is dropped beyond this

bool is_control(unsigned char c) { return c < 32 || c == 127; }
bool is_continuation(unsigned char c) { return (c & 0xc0) == 0x80; }
bool is_word(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c >= 0x80;
}

}  // namespace

Termios Termios::initial() {
    Termios t;
    t.iflag = ICRNL | IXON;
    t.oflag = OPOST | ONLCR;
    t.cflag = B38400 | CS8 | CREAD;
    t.lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
    t.cc[VINTR] = 3;
    t.cc[VQUIT] = 28;
    t.cc[VERASE] = 127;
    t.cc[VKILL] = 21;
    t.cc[VEOF] = 4;
    t.cc[VMIN] = 1;
    t.cc[VSTART] = 17;
    t.cc[VSTOP] = 19;
    t.cc[VSUSP] = 26;
    t.cc[VREPRINT] = 18;
    t.cc[VDISCARD] = 15;
    t.cc[VWERASE] = 23;
    t.cc[VLNEXT] = 22;
    t.ispeed = t.ospeed = 38400;
    return t;
}

bool LineDiscipline::canonical() const { return local(ICANON); }

void LineDiscipline::set_termios(const Termios& termios) {
    const bool was_canonical = canonical();
    const bool had_ixon = (termios_.iflag & IXON) != 0;
    termios_ = termios;
    if (was_canonical && !canonical()) {
        // What was being edited is plain input now.
        bytes_ += line_;
        line_.clear();
        ends_.clear();
        literal_next_ = false;
    } else if (!was_canonical && canonical() && !bytes_.empty()) {
        ends_.push_back(consumed_ + bytes_.size());  // Linux's `push`: it can be read as a line
    }
    if (had_ixon && (termios_.iflag & IXON) == 0) {
        stopped_ = false;  // nobody could start it any more
    }
}

// ---------------------------------------------------------------- input

size_t LineDiscipline::receive_room() const {
    const size_t used = bytes_.size() + line_.size();
    if (ends_.size() >= kInputSize) {
        return 0;  // ends of file take no bytes
    }
    if (used < kInputSize - 1) {
        return kInputSize - 1 - used;
    }
    // Full. With no whole line to read, typing must go on (surplus bytes are dropped), or the line
    // could never be ended.
    return canonical() && ends_.empty() ? 256 : 0;
}

void LineDiscipline::receive(std::string_view typed, std::vector<int>& signals) {
    for (const char c : typed) {
        receive_one(static_cast<unsigned char>(c), signals);
    }
}

int LineDiscipline::signal_of(unsigned char c) const {
    if (!local(ISIG)) {
        return 0;
    }
    return is_cc(c, VINTR) ? SIGINT : is_cc(c, VQUIT) ? SIGQUIT : is_cc(c, VSUSP) ? SIGTSTP : 0;
}

void LineDiscipline::receive_one(unsigned char c, std::vector<int>& signals) {
    if ((termios_.iflag & ISTRIP) != 0) {
        c &= 0x7f;
    }
    if ((termios_.iflag & IUCLC) != 0 && local(IEXTEN) && c >= 'A' && c <= 'Z') {
        c = static_cast<unsigned char>(c | 0x20);
    }
    if (literal_next_) {
        literal_next_ = false;
        if (local(ECHO)) {
            echo(c);
        }
        queue_input(c);
        return;
    }
    if ((termios_.iflag & IXON) != 0) {
        if (is_cc(c, VSTART)) {
            stopped_ = false;
            return;
        }
        if (is_cc(c, VSTOP)) {
            stopped_ = true;
            return;
        }
    }
    if (const int signal = signal_of(c)) {
        if (!local(NOFLSH)) {
            flush_input();
            flush_output();
        }
        stopped_ = stopped_ && (termios_.iflag & IXON) == 0;
        if (local(ECHO)) {
            echo(c);
        }
        signals.push_back(signal);
        return;
    }
    if (stopped_ && (termios_.iflag & IXON) != 0 && (termios_.iflag & IXANY) != 0) {
        stopped_ = false;
    }
    if (c == '\r') {
        if ((termios_.iflag & IGNCR) != 0) {
            return;
        }
        if ((termios_.iflag & ICRNL) != 0) {
            c = '\n';
        }
    } else if (c == '\n' && (termios_.iflag & INLCR) != 0) {
        c = '\r';
    }
    if (canonical()) {
        receive_edited(c);
        return;
    }
    if (local(ECHO)) {
        if (c == '\n') {
            put_processed(c);
        } else {
            echo(c);
        }
    }
    queue_input(c);
}

void LineDiscipline::receive_edited(unsigned char c) {
    if (is_cc(c, VERASE) || is_cc(c, VKILL) || (is_cc(c, VWERASE) && local(IEXTEN))) {
        erase(c);
        return;
    }
    if (is_cc(c, VLNEXT) && local(IEXTEN)) {
        literal_next_ = true;
        if (local(ECHO) && local(ECHOCTL)) {
            echo_raw("^\b");
        }
        return;
    }
    if (is_cc(c, VREPRINT) && local(ECHO) && local(IEXTEN)) {
        echo(c);
        put_processed('\n');
        reprint();
        return;
    }
    if (c == '\n') {
        if (local(ECHO) || local(ECHONL)) {
            put_processed('\n');
        }
        line_.push_back('\n');  // may exceed the line's limit by its end, as it must
        end_line();
        return;
    }
    if (is_cc(c, VEOF)) {
        end_line();
        return;
    }
    const bool ends = is_cc(c, VEOL) || (is_cc(c, VEOL2) && local(IEXTEN));
    if (local(ECHO)) {
        if (line_.empty()) {
            line_column_ = column_;
        }
        echo(c);
    }
    queue_input(c);
    if (ends) {
        end_line();
    }
}

void LineDiscipline::queue_input(unsigned char c) {
    std::string& to = canonical() ? line_ : bytes_;
    if (bytes_.size() + line_.size() >= kInputSize - 1) {
        if ((termios_.iflag & IMAXBEL) != 0) {
            echo_raw("\a");
        }
        return;
    }
    to.push_back(static_cast<char>(c));
}

void LineDiscipline::end_line() {
    bytes_ += line_;
    line_.clear();
    ends_.push_back(consumed_ + bytes_.size());
}

void LineDiscipline::erase(unsigned char c) {
    if (line_.empty()) {
        return;
    }
    const bool whole = is_cc(c, VKILL);
    const bool word = !whole && is_cc(c, VWERASE);
    if (whole && (!local(ECHO) || !local(ECHOK) || !local(ECHOKE) || !local(ECHOE))) {
        line_.clear();
        if (local(ECHO)) {
            echo(c);
            if (local(ECHOK)) {
                put_processed('\n');
            }
        }
        return;
    }
    bool seen_word = false;
    while (!line_.empty()) {
        size_t from = line_.size() - 1;
        if ((termios_.iflag & IUTF8) != 0) {
            while (from > 0 && is_continuation(static_cast<unsigned char>(line_[from]))) {
                from--;
            }
        }
        const auto first = static_cast<unsigned char>(line_[from]);
        if (word) {
            if (is_word(first)) {
                seen_word = true;
            } else if (seen_word) {
                break;
            }
        }
        const std::string erased = line_.substr(from);
        line_.resize(from);
        if (local(ECHO)) {
            if (!whole && !word && !local(ECHOE)) {
                echo(c);
            } else {
                erase_on_screen(erased);
            }
        }
        if (!whole && !word) {
            break;
        }
    }
}

/// line_ no longer holds what is erased.
void LineDiscipline::erase_on_screen(std::string_view erased) {
    const auto c = static_cast<unsigned char>(erased[0]);
    unsigned cells = 1;
    if (c == '\t') {
        const unsigned before = column_after(line_, line_column_);
        // Only move back: what the tab jumped over was not overwritten.
        for (unsigned n = 8 - (before & 7); n > 0; n--) {
            put_processed('\b');
        }
        return;
    }
    if (is_control(c)) {
        cells = local(ECHOCTL) ? 2 : 0;
    }
    for (; cells > 0; cells--) {
        put_processed('\b');
        put_processed(' ');
        put_processed('\b');
    }
}

unsigned LineDiscipline::column_after(std::string_view text, unsigned column) const {
    for (const char ch : text) {
        const auto c = static_cast<unsigned char>(ch);
        if (c == '\t') {
            column += 8 - (column & 7);
        } else if (is_control(c)) {
            column += local(ECHOCTL) ? 2 : 0;
        } else if ((termios_.iflag & IUTF8) == 0 || !is_continuation(c)) {
            column++;
        }
    }
    return column;
}

void LineDiscipline::reprint() {
    line_column_ = column_;
    for (const char c : line_) {
        echo(static_cast<unsigned char>(c));
    }
}

bool LineDiscipline::read_ready() const { return canonical() ? !ends_.empty() : !bytes_.empty(); }

size_t LineDiscipline::readable_bytes() const {
    if (!canonical()) {
        return bytes_.size();
    }
    return ends_.empty() ? 0 : static_cast<size_t>(ends_.back() - consumed_);
}

size_t LineDiscipline::read(char* to, size_t size) {
    if (!read_ready()) {
        return 0;
    }
    size_t n = std::min(size, bytes_.size());
    if (canonical()) {
        n = std::min<size_t>(n, ends_.front() - consumed_);
    }
    memcpy(to, bytes_.data(), n);
    bytes_.erase(0, n);
    consumed_ += n;
    if (canonical() && ends_.front() == consumed_) {
        ends_.pop_front();
    }
    return n;
}

void LineDiscipline::flush_input() {
    consumed_ += bytes_.size();
    bytes_.clear();
    ends_.clear();
    line_.clear();
    literal_next_ = false;
}

// ---------------------------------------------------------------- output

size_t LineDiscipline::write_room() const {
    return stopped_ || output_.size() >= kOutputSize ? 0 : kOutputSize - output_.size();
}

void LineDiscipline::write(std::string_view text) {
    if ((termios_.oflag & OPOST) == 0) {
        output_ += text;
        return;
    }
    for (const char c : text) {
        put_processed(static_cast<unsigned char>(c));
    }
}

size_t LineDiscipline::take_output(char* to, size_t size) {
    if (stopped_) {
        return 0;
    }
    const size_t n = std::min(size, output_.size());
    memcpy(to, output_.data(), n);
    output_.erase(0, n);
    return n;
}

void LineDiscipline::flush_output() { output_.clear(); }

void LineDiscipline::put_processed(unsigned char c) {
    if (output_.size() >= kEchoLimit) {
        return;  // write() never gets here, it is given write_room() bytes
    }
    if ((termios_.oflag & OPOST) == 0) {
        output_.push_back(static_cast<char>(c));
        return;
    }
    switch (c) {
        case '\n':
            if ((termios_.oflag & ONLCR) != 0) {
                output_ += "\r\n";
                column_ = 0;
                return;
            }
            if ((termios_.oflag & ONLRET) != 0) {
                column_ = 0;
            }
            break;
        case '\r':
            if ((termios_.oflag & ONOCR) != 0 && column_ == 0) {
                return;
            }
            if ((termios_.oflag & OCRNL) != 0) {
                c = '\n';
                if ((termios_.oflag & ONLRET) != 0) {
                    column_ = 0;
                }
                break;
            }
            column_ = 0;
            break;
        case '\t': {
            const unsigned spaces = 8 - (column_ & 7);
            column_ += spaces;
            if ((termios_.oflag & TABDLY) == XTABS) {
                output_.append(spaces, ' ');
                return;
            }
            break;
        }
        case '\b':
            column_ -= column_ > 0 ? 1 : 0;
            break;
        default:
            if ((termios_.oflag & OLCUC) != 0 && c >= 'a' && c <= 'z') {
                c = static_cast<unsigned char>(c - 0x20);
            }
            if (!is_control(c) && ((termios_.iflag & IUTF8) == 0 || !is_continuation(c))) {
                column_++;
            }
    }
    output_.push_back(static_cast<char>(c));
}

/// As typed, control characters as ^X where ECHOCTL says so.
void LineDiscipline::echo(unsigned char c) {
    if (local(ECHOCTL) && is_control(c) && c != '\t') {
        put_processed('^');
        put_processed(c ^ 0x40);
        return;
    }
    put_processed(c);
}

void LineDiscipline::echo_raw(std::string_view text) {
    for (const char c : text) {
        put_processed(static_cast<unsigned char>(c));
    }
}

}  // namespace moat::kernel
