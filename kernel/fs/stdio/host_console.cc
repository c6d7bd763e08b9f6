#include "kernel/fs/stdio/host_console.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace moat::kernel {

namespace {

constexpr size_t kChunk = 4096;

}  // namespace

Result<RefPtr<HostConsole>> HostConsole::start(ScopedFd host, RefPtr<Tty> tty,
                                               RefPtr<CriLogSink> log,
                                               RefPtr<Attachments> attached) {
    if (!host) {
        auto console = make_ref<HostConsole>(std::move(host), std::move(tty), std::move(log),
                                             std::move(attached));
        console->tty_->far_events().add(console.get(), EPOLLIN);
        if (console->attached_) {
            console->attached_->queue().add(console.get(), EPOLLOUT);
        }
        console->on_event(EPOLLIN);
        return console;
    }
    const int flags = TRY(host_result(fcntl(host.get(), F_GETFL)));
    TRY(host_result(fcntl(host.get(), F_SETFL, flags | O_NONBLOCK)));
    auto watch = TRY(HostWatch::start(host.get()));
    auto console =
        make_ref<HostConsole>(std::move(host), std::move(tty), std::move(log), std::move(attached));
    watch->queue().add(console.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    console->tty_->far_events().add(console.get(), EPOLLIN | EPOLLOUT);
    if (console->attached_) {
        console->attached_->queue().add(console.get(), EPOLLOUT);
    }
    {
        MutexLock lock(console->mu_);
        console->watch_ = std::move(watch);
    }
    console->on_event(EPOLLIN | EPOLLOUT);  // what came before we watched
    return console;
}

void HostConsole::finish() {
    {
        MutexLock lock(mu_);
        finishing_ = true;
    }
    on_event(EPOLLOUT);
}

bool HostConsole::closed() {
    MutexLock lock(mu_);
    return closed_;
}

void HostConsole::on_event(PollMask) {
    RefPtr<HostConsole> self(this);  // the queues' references may be the last
    RefPtr<HostWatch> watch;
    ScopedFd host;
    {
        MutexLock lock(mu_);
        if (closed_) {
            return;
        }
        const Flow in = host_ ? copy_in_locked() : Flow::kMore;
        const Flow out = copy_out_locked();
        if (in == Flow::kMore && out == Flow::kMore) {
            return;
        }
        closed_ = true;
        watch = std::move(watch_);
        host = std::move(host_);
    }
    if (watch) {
        watch->stop();
        watch->queue().remove(this);
    }
    tty_->far_events().remove(this);
    if (attached_) {
        attached_->queue().remove(this);
        attached_->finish();
    }
    if (log_) {
        log_->end(CriLogSink::Stream::kStdout);
    }
    tty_->hang_up();
}

/// What was typed. No more than there is room for: the rest waits in the host's terminal, and the
/// Tty tells when a program has read.
HostConsole::Flow HostConsole::copy_in_locked() {
    for (;;) {
        char typed[kChunk];
        const size_t room = std::min(tty_->far_room(), sizeof typed);
        if (room == 0) {
            return Flow::kMore;
        }
        const ssize_t n = ::read(host_.get(), typed, room);
        if (n > 0) {
            tty_->far_put({typed, static_cast<size_t>(n)});
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            return Flow::kEnd;  // EIO: the other side of the host's pty is closed
        } else if (errno == EAGAIN) {
            return Flow::kMore;
        }
    }
}

HostConsole::Flow HostConsole::copy_out_locked() {
    for (;;) {
        if (unsent_.empty()) {
            char shown[kChunk];
            // At the end it is little, and nobody waits any more.
            const size_t room = attached_ && !finishing_ ? attached_->room() : sizeof shown;
            if (room == 0) {
                return Flow::kMore;
            }
            const auto n = tty_->far_take(shown, std::min(room, sizeof shown));
            if (!n.ok() || *n == 0) {
                return finishing_ ? Flow::kEnd : Flow::kMore;
            }
            if (log_) {
                log_->write(CriLogSink::Stream::kStdout, {shown, *n});
            }
            if (attached_) {
                attached_->write(CriLogSink::Stream::kStdout, {shown, *n});
            }
            if (!host_) {
                continue;
            }
            unsent_.assign(shown, *n);
        }
        const ssize_t n = ::write(host_.get(), unsent_.data(), unsent_.size());
        if (n > 0) {
            unsent_.erase(0, static_cast<size_t>(n));
        } else if (n < 0 && errno == EAGAIN) {
            return Flow::kMore;
        } else if (n < 0 && errno != EINTR) {
            return Flow::kEnd;
        }
    }
}

}  // namespace moat::kernel
