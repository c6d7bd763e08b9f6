#include "kernel/fs/stdio/attachments.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/mm/io_buffer.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

constexpr size_t kChunk = 4096;

class AttachedInputFile final : public File {
  public:
    explicit AttachedInputFile(RefPtr<AttachedInput> input)
        : File(O_RDONLY), input_(std::move(input)) {}

    // To the guest it is a pipe from its runtime, as with other runtimes.
    std::string anonymous_name() const override { return "pipe:[0]"; }
    Result<struct stat> stat(Task&) override {
        struct stat s {};
        s.st_mode = S_IFIFO | 0600;
        s.st_nlink = 1;
        s.st_blksize = 4096;
        return s;
    }
    Result<size_t> read(Task&, IoBuffer& destination) override { return input_->read(destination); }
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override {
        if (command == FIONREAD) {
            TRY(task.copy_out(UserPtr<int32_t>(argument), static_cast<int32_t>(input_->size())));
            return 0;
        }
        return Errno(ENOTTY);
    }
    /// /proc/self/fd/0 and /dev/stdin lead here.
    Result<RefPtr<File>> reopen(Task&, uint32_t flags) override {
        if ((flags & O_ACCMODE) != O_RDONLY) {
            return Errno(EACCES);
        }
        return RefPtr<File>(this);
    }
    PollMask poll() override { return input_->poll(); }
    WaitQueue* wait_queue() override { return &input_->room_queue(); }

  private:
    const RefPtr<AttachedInput> input_;
};

class TerminalSink final : public AttachedSink {
  public:
    explicit TerminalSink(RefPtr<Tty> tty) : tty_(std::move(tty)) {}
    size_t room() override { return tty_->far_room(); }
    void put(std::string_view bytes) override { tty_->far_put(bytes); }
    void end() override {}
    WaitQueue& room_queue() override { return tty_->far_events(); }

  private:
    const RefPtr<Tty> tty_;
};

Result<RefPtr<HostWatch>> watch(const ScopedFd& fd) {
    const int flags = TRY(host_result(fcntl(fd.get(), F_GETFL)));
    TRY(host_result(fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK)));
    return HostWatch::start(fd.get());
}

}  // namespace

// ---------------------------------------------------------------- input

size_t AttachedInput::room() {
    MutexLock lock(mu_);
    // After the end it is dropped.
    return ended_ ? kCapacity : kCapacity - std::min(kCapacity, bytes_.size());
}

void AttachedInput::put(std::string_view bytes) {
    MutexLock lock(mu_);
    if (!ended_) {
        bytes_ += bytes;
        queue_.notify(EPOLLIN | EPOLLRDNORM);
    }
}

void AttachedInput::end() {
    if (once_ == Once::kYes) {
        MutexLock lock(mu_);
        ended_ = true;
        queue_.notify(EPOLLIN | EPOLLRDNORM | EPOLLHUP | EPOLLOUT);
    }
}

Result<size_t> AttachedInput::read(IoBuffer& destination) {
    size_t total = 0;
    MutexLock lock(mu_);
    if (bytes_.empty()) {
        return ended_ || destination.remaining() == 0 ? Result<size_t>(size_t{0}) : Errno(EAGAIN);
    }
    // Guest memory is copied to with the lock held, as a pipe's is.
    total = TRY(destination.put(bytes_.data(), std::min(bytes_.size(), destination.remaining())));
    bytes_.erase(0, total);
    queue_.notify(EPOLLOUT);
    return total;
}

size_t AttachedInput::size() {
    MutexLock lock(mu_);
    return bytes_.size();
}

PollMask AttachedInput::poll() {
    MutexLock lock(mu_);
    PollMask ready = bytes_.empty() ? 0u : EPOLLIN | EPOLLRDNORM;
    if (ended_) {
        ready |= EPOLLHUP;
    }
    return ready;
}

RefPtr<File> make_attached_input_file(RefPtr<AttachedInput> input) {
    return make_ref<AttachedInputFile>(std::move(input));
}

RefPtr<AttachedSink> make_terminal_sink(RefPtr<Tty> tty) {
    return make_ref<TerminalSink>(std::move(tty));
}

// ---------------------------------------------------------------- attachments

/// One who is attached. Everything is guarded by the mutex of his Attachments.
class Attachments::Attachment final : public Waiter {
  public:
    struct Output {
        ScopedFd fd;
        RefPtr<HostWatch> watch;
        std::string held;
    };

    Attachment(RefPtr<Attachments> all, uint64_t attachment_number)
        : number(attachment_number), all_(std::move(all)) {}

    void on_event(PollMask) override { all_->serve(*this); }

    static void close(ScopedFd& fd, RefPtr<HostWatch>& watch, Waiter* waiter) {
        if (watch) {
            watch->stop();
            watch->queue().remove(waiter);
            watch = nullptr;
        }
        fd.reset();
    }

    /// Passes on what is held. False: nobody takes it any more.
    bool flush(Output& output) {
        while (!output.held.empty()) {
            const ssize_t n = ::write(output.fd.get(), output.held.data(), output.held.size());
            if (n > 0) {
                output.held.erase(0, static_cast<size_t>(n));
                taken += static_cast<uint64_t>(n);
            } else if (n < 0 && errno == EAGAIN) {
                break;
            } else if (n == 0 || errno != EINTR) {
                return false;
            }
        }
        return (poll_host(output.fd.get()) & (EPOLLERR | EPOLLHUP)) == 0;
    }

    const uint64_t number;
    ScopedFd in;
    RefPtr<HostWatch> in_watch;
    Output outputs[2];  // stdout, stderr
    bool had_output = false;
    uint64_t taken = 0;     // bytes that he took
    bool on_clock = false;  // he is full, and his time runs

  private:
    const RefPtr<Attachments> all_;
};

Attachments::Attachments(RefPtr<AttachedSink> sink, int64_t patience_ns)
    : sink_(std::move(sink)), patience_ns_(patience_ns) {}
Attachments::~Attachments() = default;

Status Attachments::attach(ScopedFd in, ScopedFd out, ScopedFd err) {
    if (in && !sink_) {
        return Errno(EINVAL);
    }
    RefPtr<HostWatch> in_watch, out_watch, err_watch;
    const auto stop = [&] {
        for (const auto& one : {in_watch, out_watch, err_watch}) {
            if (one) {
                one->stop();
            }
        }
    };
    for (const auto& [fd, place] :
         {std::pair(&in, &in_watch), std::pair(&out, &out_watch), std::pair(&err, &err_watch)}) {
        if (*fd) {
            auto started = watch(*fd);
            if (!started.ok()) {
                stop();
                return started.error();
            }
            *place = std::move(*started);
        }
    }
    RefPtr<Attachment> attachment;
    {
        MutexLock lock(mu_);
        if (finishing_ || attached_.size() >= kMost) {
            const int error = finishing_ ? ESRCH : EUSERS;
            lock.unlock();
            stop();
            return Errno(error);
        }
        attachment = make_ref<Attachment>(RefPtr<Attachments>(this), ++last_number_);
        attachment->in = std::move(in);
        attachment->in_watch = in_watch;
        attachment->outputs[0].fd = std::move(out);
        attachment->outputs[0].watch = out_watch;
        attachment->outputs[1].fd = std::move(err);
        attachment->outputs[1].watch = err_watch;
        attachment->had_output = out_watch || err_watch;
        attached_.push_back(attachment);
        for (const auto& one : {in_watch, out_watch, err_watch}) {
            if (one) {
                one->queue().add(attachment.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
            }
        }
        if (in_watch) {
            sink_->room_queue().add(attachment.get(), EPOLLOUT);
        }
    }
    serve(*attachment);  // what came before we watched
    return {};
}

void Attachments::detach_locked(Attachment& attachment) {
    if (attachment.in_watch) {
        sink_->room_queue().remove(&attachment);
    }
    Attachment::close(attachment.in, attachment.in_watch, &attachment);
    for (auto& output : attachment.outputs) {
        output.held.clear();
        Attachment::close(output.fd, output.watch, &attachment);
    }
    std::erase_if(attached_, [&](const auto& one) { return one.get() == &attachment; });
    queue_.notify(EPOLLOUT);
}

/// Moves what can be moved, in both directions.
void Attachments::serve(Attachment& attachment) {
    const RefPtr<Attachment> keep(&attachment);
    MutexLock lock(mu_);
    bool open = false;
    const uint64_t taken = attachment.taken;
    for (auto& output : attachment.outputs) {
        if (!output.fd) {
            continue;
        }
        if (!attachment.flush(output) || (finishing_ && output.held.empty())) {
            output.held.clear();
            Attachment::close(output.fd, output.watch, &attachment);
        }
        open = open || static_cast<bool>(output.fd);
    }
    if (attachment.taken != taken) {
        queue_.notify(EPOLLOUT);
    }
    while (attachment.in && !finishing_) {
        char typed[kChunk];
        const size_t room = std::min(sink_->room(), sizeof typed);
        if (room == 0) {
            break;
        }
        const ssize_t n = ::read(attachment.in.get(), typed, room);
        if (n > 0) {
            sink_->put({typed, static_cast<size_t>(n)});
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            sink_->end();
            sink_->room_queue().remove(&attachment);
            Attachment::close(attachment.in, attachment.in_watch, &attachment);
        } else if (errno == EAGAIN) {
            break;
        }
    }
    // One who was shown something and has closed that has gone; one who only types stays as long.
    if (!open && (attachment.had_output || !attachment.in || finishing_)) {
        detach_locked(attachment);
    }
}

size_t Attachments::room() {
    MutexLock lock(mu_);
    size_t least = SIZE_MAX;
    for (const auto& attachment : attached_) {
        for (const auto& output : attachment->outputs) {
            if (!output.fd) {
                continue;
            }
            const size_t room = kBuffer - std::min(kBuffer, output.held.size());
            least = std::min(least, room);
            if (room == 0 && !attachment->on_clock) {
                attachment->on_clock = true;
                start_timer(monotonic_ns() + patience_ns_,
                            [self = RefPtr<Attachments>(this), number = attachment->number,
                             taken = attachment->taken] { self->out_of_patience(number, taken); });
            }
        }
    }
    return least;
}

void Attachments::out_of_patience(uint64_t number, uint64_t taken) {
    MutexLock lock(mu_);
    const auto it = std::find_if(attached_.begin(), attached_.end(),
                                 [&](const auto& one) { return one->number == number; });
    if (it == attached_.end()) {
        return;
    }
    const RefPtr<Attachment> attachment = *it;
    attachment->on_clock = false;
    if (attachment->taken != taken) {
        queue_.notify(EPOLLOUT);  // who still finds no room starts the clock again
        return;
    }
    LOG(kWarning, "fs.stdio", "somebody attached has read nothing for %lld s: cut off",
        static_cast<long long>(patience_ns_ / 1'000'000'000));
    detach_locked(*attachment);
}

void Attachments::write(CriLogSink::Stream stream, std::string_view text) {
    MutexLock lock(mu_);
    // A copy: one who has gone is taken off the list.
    const auto all = attached_;
    for (const auto& attachment : all) {
        auto& output = attachment->outputs[static_cast<size_t>(stream)];
        if (!output.fd) {
            continue;
        }
        output.held += text;
        if (!attachment->flush(output)) {
            output.held.clear();
            Attachment::close(output.fd, output.watch, attachment.get());
            if (!attachment->outputs[0].fd && !attachment->outputs[1].fd) {
                detach_locked(*attachment);
            }
        }
    }
}

void Attachments::finish() {
    std::vector<RefPtr<Attachment>> all;
    {
        MutexLock lock(mu_);
        finishing_ = true;
        all = attached_;
    }
    for (const auto& attachment : all) {
        serve(*attachment);
    }
    (void)room();  // who does not take the rest has his time, too
}

size_t Attachments::count() {
    MutexLock lock(mu_);
    return attached_.size();
}

}  // namespace moat::kernel
