#include "kernel/fs/tty/tty.h"

#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include <algorithm>

#include "kernel/fs/tty/job_control.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

namespace {

constexpr size_t kChunk = 4096;
constexpr PollMask kReadable = EPOLLIN | EPOLLRDNORM;
constexpr PollMask kWritable = EPOLLOUT | EPOLLWRNORM;

}  // namespace

Tty::Tty(uint32_t index, uint64_t device, std::function<void()> gone)
    : index_(index), device_(device), gone_(std::move(gone)) {}
Tty::~Tty() = default;

uint64_t Tty::rdev() const { return makedev(kPtySlaveMajor, index_); }
std::string Tty::name() const { return "/dev/pts/" + std::to_string(index_); }

// ---------------------------------------------------------------- near side

Result<RefPtr<File>> Tty::open_near(Task& task, uint32_t flags) {
    {
        MutexLock lock(mu_);
        if (hung_up_ || locked_) {
            return Errno(EIO);
        }
        if (exclusive_ && near_files_ > 0 && !task.has_capability(21 /* CAP_SYS_ADMIN */)) {
            return Errno(EBUSY);
        }
        near_files_++;
        near_was_open_ = true;
    }
    RefPtr<File> file =
        make_ref<TtyFile>(flags & ~static_cast<uint32_t>(O_NOCTTY), RefPtr<Tty>(this));
    if ((flags & O_NOCTTY) == 0 && file->readable() && leads_session(task)) {
        (void)make_controlling(task, false);  // EPERM: it has a terminal, or this one has a session
    }
    return file;
}

void Tty::near_closed() {
    MutexLock lock(mu_);
    CHECK(near_files_ > 0);
    if (--near_files_ == 0) {
        exclusive_ = false;
        far_events_.notify(EPOLLHUP | EPOLLIN);
    }
}

Result<size_t> Tty::read(Task& task, IoBuffer& destination, bool nonblocking) {
    TRY(check_foreground(task, SIGTTIN));
    char data[kChunk];
    size_t n;
    {
        MutexLock lock(mu_);
        if (hung_up_) {
            return size_t{0};
        }
        n = TRY(
            take_input_locked(data, std::min(sizeof data, destination.remaining()), nonblocking));
    }
    far_events_.notify(kWritable);
    return n == 0 ? Result<size_t>(size_t{0}) : destination.put(data, n);
}

/// termios(3), "canonical and noncanonical mode". EAGAIN: not yet.
Result<size_t> Tty::take_input_locked(char* to, size_t size, bool nonblocking) {
    if (size == 0) {
        return size_t{0};
    }
    if (discipline_.canonical()) {
        if (!discipline_.read_ready()) {
            return Errno(EAGAIN);
        }
        return discipline_.read(to, size);
    }
    const size_t available = discipline_.readable_bytes();
    const size_t minimum = std::min<size_t>(discipline_.termios().cc[VMIN], size);
    const int64_t time = discipline_.termios().cc[VTIME] * int64_t{100'000'000};
    const bool timed_out = std::exchange(read_timed_out_, false);
    if (available >= std::max<size_t>(minimum, 1)) {
        return discipline_.read(to, size);
    }
    if (minimum == 0 && (time == 0 || timed_out)) {
        return size_t{0};
    }
    if (nonblocking) {
        return available > 0 ? Result<size_t>(discipline_.read(to, size)) : Errno(EAGAIN);
    }
    if (time > 0) {
        if (minimum == 0) {
            arm_read_timer_locked(monotonic_ns() + time);
        } else if (available > 0) {
            // Between bytes: the clock starts with the last one.
            const int64_t deadline = last_input_ns_ + time;
            if (monotonic_ns() >= deadline) {
                return discipline_.read(to, size);
            }
            arm_read_timer_locked(deadline);
        }
    }
    return Errno(EAGAIN);
}

void Tty::arm_read_timer_locked(int64_t deadline_ns) {
    if (timer_ != 0) {
        return;
    }
    timer_ = start_timer(deadline_ns, [self = RefPtr<Tty>(this)] {
        MutexLock lock(self->mu_);
        self->timer_ = 0;
        // With nobody waiting the reader was interrupted; a later one starts its own time.
        self->read_timed_out_ = self->near_events_.has_waiters();
        self->near_events_.notify(kReadable);
    });
}

Result<size_t> Tty::write(Task& task, IoBuffer& source) {
    bool stop_background;
    {
        MutexLock lock(mu_);
        stop_background = (discipline_.termios().lflag & TOSTOP) != 0;
    }
    if (stop_background) {
        TRY(check_foreground(task, SIGTTOU));
    }
    size_t total = 0;
    while (source.remaining() > 0) {
        char data[kChunk];
        size_t room;
        {
            MutexLock lock(mu_);
            if (hung_up_) {
                return total > 0 ? Result<size_t>(total) : Errno(EIO);
            }
            room = std::min(discipline_.write_room(), sizeof data);
        }
        if (room == 0) {
            return total > 0 ? Result<size_t>(total) : Errno(EAGAIN);
        }
        const auto taken = source.take(data, room);
        if (!taken.ok()) {
            return total > 0 ? Result<size_t>(total) : taken;
        }
        MutexLock lock(mu_);
        discipline_.write({data, *taken});
        total += *taken;
        far_events_.notify(kReadable);
    }
    return total;
}

PollMask Tty::near_poll() {
    MutexLock lock(mu_);
    if (hung_up_) {
        return kReadable | kWritable | EPOLLHUP | EPOLLERR;
    }
    PollMask mask = discipline_.write_room() > 0 ? kWritable : 0;
    const Termios& t = discipline_.termios();
    const size_t wanted =
        discipline_.canonical() || t.cc[VTIME] != 0 ? 1 : std::max<size_t>(t.cc[VMIN], 1);
    if (discipline_.canonical() ? discipline_.read_ready()
                                : discipline_.readable_bytes() >= wanted) {
        mask |= kReadable;
    }
    return mask;
}

// ---------------------------------------------------------------- far side

Result<size_t> Tty::far_take(char* to, size_t size) {
    MutexLock lock(mu_);
    const size_t n = discipline_.take_output(to, size);
    if (n == 0 && near_was_open_ && near_files_ == 0) {
        return Errno(EIO);
    }
    if (n > 0) {
        near_events_.notify(kWritable);
    }
    return n;
}

Result<size_t> Tty::far_read(IoBuffer& destination) {
    if (destination.remaining() == 0) {
        return size_t{0};
    }
    char data[kChunk];
    size_t prefix = 0;
    {
        MutexLock lock(mu_);
        if (packet_mode_) {
            prefix = 1;
            data[0] = TIOCPKT_DATA;
            if (packet_event_ != 0) {
                data[0] = static_cast<char>(std::exchange(packet_event_, uint8_t{0}));
                lock.unlock();
                return destination.put(data, 1);
            }
        }
    }
    const size_t size = std::min(sizeof data, destination.remaining()) - prefix;
    const size_t n = TRY(far_take(data + prefix, size));
    if (n == 0) {
        return Errno(EAGAIN);
    }
    return destination.put(data, prefix + n);
}

size_t Tty::far_room() {
    MutexLock lock(mu_);
    return discipline_.receive_room();
}

void Tty::far_put(std::string_view typed) {
    std::vector<int> signals;
    RefPtr<ProcessGroup> group;
    {
        MutexLock lock(mu_);
        const bool was_stopped = discipline_.stopped();
        discipline_.receive(typed, signals);
        last_input_ns_ = monotonic_ns();
        if (was_stopped != discipline_.stopped()) {
            note_packet_locked(was_stopped ? TIOCPKT_START : TIOCPKT_STOP);
        }
        if (discipline_.read_ready()) {
            near_events_.notify(kReadable);
        }
        near_events_.notify(kWritable);
        if (discipline_.output_size() > 0) {
            far_events_.notify(kReadable);
        }
        if (!signals.empty()) {
            group = foreground_locked();
        }
    }
    for (const int signal : signals) {
        if (group) {
            (void)send_signal(*group, SignalInfo::from_kernel(signal));
        }
    }
}

Result<size_t> Tty::far_write(IoBuffer& source) {
    size_t total = 0;
    while (source.remaining() > 0) {
        char data[kChunk];
        const size_t room = std::min(far_room(), sizeof data);
        if (room == 0) {
            return total > 0 ? Result<size_t>(total) : Errno(EAGAIN);
        }
        const auto taken = source.take(data, room);
        if (!taken.ok()) {
            return total > 0 ? Result<size_t>(total) : taken;
        }
        far_put({data, *taken});
        total += *taken;
    }
    return total;
}

PollMask Tty::far_poll() {
    MutexLock lock(mu_);
    PollMask mask = 0;
    if (discipline_.output_size() > 0) {
        mask |= kReadable;
    }
    if (packet_mode_ && packet_event_ != 0) {
        mask |= EPOLLPRI | kReadable;
    }
    if (discipline_.receive_room() > 0) {
        mask |= kWritable;
    }
    if (near_was_open_ && near_files_ == 0) {
        mask |= EPOLLHUP;
    }
    return mask;
}

void Tty::note_packet_locked(uint8_t event) {
    if (packet_mode_) {
        packet_event_ |= event;
        far_events_.notify(EPOLLPRI | kReadable);
    }
}

void Tty::set_packet_mode(bool on) {
    MutexLock lock(mu_);
    packet_mode_ = on;
    packet_event_ = 0;
}

bool Tty::packet_mode() {
    MutexLock lock(mu_);
    return packet_mode_;
}

void Tty::set_locked(bool locked) {
    MutexLock lock(mu_);
    locked_ = locked;
}

bool Tty::locked() {
    MutexLock lock(mu_);
    return locked_;
}

winsize Tty::window_size() {
    MutexLock lock(mu_);
    return window_;
}

void Tty::set_window_size(const winsize& size) {
    RefPtr<ProcessGroup> group;
    {
        MutexLock lock(mu_);
        if (memcmp(&window_, &size, sizeof size) == 0) {
            return;
        }
        window_ = size;
        group = foreground_locked();
    }
    if (group) {
        (void)send_signal(*group, SignalInfo::from_kernel(SIGWINCH));
    }
}

// ---------------------------------------------------------------- files

Result<struct stat> TtyFile::stat(Task& task) {
    if (path()) {
        return File::stat(task);
    }
    struct stat s {};
    s.st_mode = S_IFCHR | 0620;
    s.st_rdev = tty_->rdev();
    s.st_dev = tty_->device();  // ttyname(3) compares it with /dev/pts/N
    s.st_ino = kFirstPtyIno + tty_->index();
    s.st_nlink = 1;
    s.st_blksize = 1024;
    return s;
}

}  // namespace moat::kernel
