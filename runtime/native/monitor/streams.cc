#include "runtime/native/monitor/streams.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/native/monitor/runc.h"

namespace moat::monitor {

namespace {
void no_waiting(const ScopedFd& fd) {
    fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
}
}  // namespace

void Streams::set_output(LogStream stream, ScopedFd source) {
    no_waiting(source);
    outputs_[static_cast<size_t>(stream)].source = std::move(source);
}

void Streams::set_input(ScopedFd to, bool once) {
    no_waiting(to);
    input_ = std::move(to);
    input_once_ = once;
}

void Streams::attach(ScopedFd in, ScopedFd out, ScopedFd err) {
    if (in && input_) {
        inputs_.push_back(std::move(in));
    }
    ScopedFd* fds[2] = {&out, &err};
    for (size_t i = 0; i < 2; i++) {
        if (*fds[i] && outputs_[i].source) {
            no_waiting(*fds[i]);
            outputs_[i].attached.push_back({std::move(*fds[i]), "", monotonic_ms()});
        }
    }
}

bool Streams::delivered() const {
    return outputs_[0].attached.empty() && outputs_[1].attached.empty();
}

void Streams::write_log(const std::string& lines) {
    int error = 0;
    if (log_) {
        (void)writer_.write(log_.get(), lines, error);  // a full disk loses lines
    }
}

void Streams::flush(Attached& one) {
    const int64_t now = monotonic_ms();
    while (one.fd && !one.pending.empty()) {
        const ssize_t n = write(one.fd.get(), one.pending.data(), one.pending.size());
        if (n > 0) {
            one.pending.erase(0, static_cast<size_t>(n));
            one.moved_ms = now;
        } else if (n < 0 && errno == EAGAIN) {
            if (now - one.moved_ms >= kStallMs) {
                one.fd.reset();
            }
            return;
        } else if (n == 0 || errno != EINTR) {
            one.fd.reset();
        }
    }
    one.moved_ms = now;
}

void Streams::read_output(LogStream stream) {
    Output& output = outputs_[static_cast<size_t>(stream)];
    char buffer[32 << 10];
    const ssize_t n = read(output.source.get(), buffer, sizeof buffer);
    if (n > 0) {
        const std::string_view text(buffer, static_cast<size_t>(n));
        write_log(lines_.add(stream, text));
        for (Attached& one : output.attached) {
            one.pending += text;
            flush(one);
        }
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        end_output(stream);  // EIO: the last holder of a terminal's slave is gone
    }
}

void Streams::end_output(LogStream stream) {
    outputs_[static_cast<size_t>(stream)].source.reset();
    write_log(lines_.end(stream));
}

void Streams::give_up() {
    for (const LogStream stream : {LogStream::kStdout, LogStream::kStderr}) {
        if (outputs_[static_cast<size_t>(stream)].source) {
            end_output(stream);
        }
    }
}

void Streams::read_input(ScopedFd& from) {
    char buffer[16 << 10];
    const ssize_t n = read(from.get(), buffer, sizeof buffer);
    if (n > 0) {
        input_pending_.append(buffer, static_cast<size_t>(n));
        flush_input();
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        from.reset();
        input_ending_ = input_ending_ || input_once_;
        flush_input();
    }
}

void Streams::flush_input() {
    while (input_ && !input_pending_.empty()) {
        const ssize_t n = write(input_.get(), input_pending_.data(), input_pending_.size());
        if (n > 0) {
            input_pending_.erase(0, static_cast<size_t>(n));
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n == 0 || errno != EINTR) {
            input_.reset();
        }
    }
    if (input_ending_) {
        input_.reset();
    }
    if (!input_) {
        input_pending_.clear();
        inputs_.clear();
    }
}

int Streams::prepare(std::vector<pollfd>& fds) {
    bool waiting = false;
    for (Output& output : outputs_) {
        std::erase_if(output.attached, [&](const Attached& one) {
            return !one.fd || (one.pending.empty() && !output.source);
        });
        bool held = false;
        for (const Attached& one : output.attached) {
            held = held || one.pending.size() > kPendingLimit;
            waiting = waiting || !one.pending.empty();
            // Without events poll() still tells when the reader has gone.
            fds.push_back({one.fd.get(), static_cast<short>(one.pending.empty() ? 0 : POLLOUT), 0});
        }
        fds.push_back({held ? -1 : output.source.get(), POLLIN, 0});
    }
    std::erase_if(inputs_, [](const ScopedFd& fd) { return !fd; });
    for (const ScopedFd& fd : inputs_) {
        fds.push_back({input_pending_.empty() ? fd.get() : -1, POLLIN, 0});
    }
    fds.push_back({input_pending_.empty() ? -1 : input_.get(), POLLOUT, 0});
    return waiting ? 1000 : -1;
}

void Streams::handle(const pollfd* fds) {
    for (const LogStream stream : {LogStream::kStdout, LogStream::kStderr}) {
        Output& output = outputs_[static_cast<size_t>(stream)];
        for (Attached& one : output.attached) {
            if (fds->revents & (POLLERR | POLLNVAL)) {
                one.fd.reset();
            } else if (!one.pending.empty()) {
                flush(one);
            }
            fds++;
        }
        if (fds->revents != 0) {
            read_output(stream);
        }
        fds++;
    }
    // flush_input() may drop them all.
    const size_t inputs = inputs_.size();
    for (size_t i = 0; i < inputs; i++) {
        if (fds[i].revents != 0 && i < inputs_.size() && input_pending_.empty()) {
            read_input(inputs_[i]);
        }
    }
    if (fds[inputs].revents != 0) {
        flush_input();
    }
}

}  // namespace moat::monitor
