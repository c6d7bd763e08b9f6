#pragma once

#include <signal.h>

#include <functional>
#include <optional>

#include "runtime/container/impl.h"
#include "runtime/sentry_runtime.h"

namespace moat::runtime::cli {

/// Stands between our terminal and signals and a process in a sandbox while it runs.
///
/// Made before the process is, so that no signal is lost: from then on signals are blocked and
/// queue.
class Foreground {
  public:
    Foreground();
    ~Foreground();
    Foreground(const Foreground&) = delete;
    Foreground& operator=(const Foreground&) = delete;

    /// Makes a pty for the process, of our own terminal's size, if it has one.
    Status open_terminal();
    /// Our side of the process's streams: the pty's slave, or our own three descriptors.
    Stdio stdio() const;

    struct Process {
        std::function<Result<ExitStatus>()> wait;
        std::function<void(int signal)> signal;
        std::function<void(uint16_t rows, uint16_t columns)> resize;
    };
    /// Passes everything on until `wait` returns, then what is left of the output. Its own terminal
    /// is raw meanwhile.
    Result<ExitStatus> run(const Process& process);

  private:
    void copy_input();
    /// False when there is nothing more to read at the moment.
    bool copy_output();
    void pass_size(const Process& process);

    sigset_t old_mask_;
    ScopedFd signals_;
    std::optional<Pty> pty_;
    bool input_open_ = true;
    bool output_open_ = true;
};

}  // namespace moat::runtime::cli
