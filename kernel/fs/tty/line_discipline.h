#pragma once

// What a terminal does between the keyboard and the program: editing of lines, echo, signal
// characters, newline translation (termios(3); Linux: drivers/tty/n_tty.c). A pure state machine:
// it knows no tasks and takes no locks, its owner (Tty) does.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace moat::kernel {

/// struct termios2 of the kernel's ABI; its first kTermiosSize bytes are the older struct termios.
struct Termios {
    uint32_t iflag = 0, oflag = 0, cflag = 0, lflag = 0;
    uint8_t line = 0;
    uint8_t cc[19] = {};
    uint32_t ispeed = 0, ospeed = 0;

    /// What a new terminal has: cooked, echoing, 38400 baud.
    static Termios initial();
};
static_assert(sizeof(Termios) == 44);
inline constexpr size_t kTermiosSize = 36;

class LineDiscipline {
  public:
    LineDiscipline() : termios_(Termios::initial()) {}

    const Termios& termios() const { return termios_; }
    void set_termios(const Termios& termios);

    // The far side: keyboard and screen (a pty's master).

    /// How many bytes receive() may be given now; 0 makes the far side wait. Soft: a few more do no
    /// harm.
    size_t receive_room() const;
    /// What was typed. Signals that it means for the foreground group are appended to `signals`.
    void receive(std::string_view typed, std::vector<int>& signals);
    /// What is to be shown; nothing while stopped by VSTOP or TCXONC.
    size_t take_output(char* to, size_t size);
    /// Bytes take_output() would give.
    size_t output_size() const { return stopped_ ? 0 : output_.size(); }

    // The near side: the program.

    /// Bytes that wait to be shown, stopped or not (TIOCOUTQ).
    size_t output_pending() const { return output_.size(); }
    /// How many bytes write() may be given now; 0 while full or stopped.
    size_t write_room() const;
    void write(std::string_view text);
    /// One read(2): at most one line in canonical mode. 0 where read_ready() was false, and at an
    /// end of file typed by the user (VEOF).
    size_t read(char* to, size_t size);
    /// A whole line (or a typed end of file), or in raw mode any byte, waits.
    bool read_ready() const;
    /// Bytes a reader could have now (FIONREAD; VMIN counts these in raw mode).
    size_t readable_bytes() const;
    bool canonical() const;

    void flush_input();
    void flush_output();
    void stop() { stopped_ = true; }
    void start() { stopped_ = false; }
    bool stopped() const { return stopped_; }
    /// Input as if typed, for TIOCSTI and TCXONC's TCIOFF.
    void send_far(char c) { output_.push_back(c); }

  private:
    bool local(uint32_t flag) const { return (termios_.lflag & flag) != 0; }
    bool is_cc(unsigned char c, int index) const {
        return termios_.cc[index] != 0 && termios_.cc[index] == c;
    }
    void receive_one(unsigned char c, std::vector<int>& signals);
    void receive_edited(unsigned char c);
    void queue_input(unsigned char c);
    void end_line();
    void erase(unsigned char c);
    void erase_on_screen(std::string_view erased);
    void put_processed(unsigned char c);
    void echo(unsigned char c);
    void echo_raw(std::string_view text);
    void reprint();
    int signal_of(unsigned char c) const;
    unsigned column_after(std::string_view text, unsigned column) const;

    Termios termios_;
    // Input that readers may have: bytes_, whose first byte has the running number consumed_; ends_
    // are the numbers just behind each line's last byte (canonical mode). A typed end of file is an
    // end with no byte of its own.
    std::string bytes_;
    uint64_t consumed_ = 0;
    std::deque<uint64_t> ends_;
    std::string line_;          // being edited (canonical mode)
    unsigned line_column_ = 0;  // where on the screen its echo began
    bool literal_next_ = false;
    std::string output_;
    unsigned column_ = 0;
    bool stopped_ = false;
};

}  // namespace moat::kernel
