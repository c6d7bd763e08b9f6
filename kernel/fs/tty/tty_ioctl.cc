// ioctl_tty(2).

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/namei.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

// Built from struct termios2 by the kernel's headers, which clash with the C library's.
constexpr uint32_t kTcgets2 = 0x802c542a;
constexpr uint32_t kTcsets2 = 0x402c542b;
constexpr uint32_t kTcsetsw2 = 0x402c542c;
constexpr uint32_t kTcsetsf2 = 0x402c542d;
constexpr uint32_t kBaudMask = 0010017;  // CBAUD with CBAUDEX

/// Speed in bits per second of the coded cflag; 0: BOTHER, the fields say it.
uint32_t coded_speed(uint32_t cflag) {
    static const uint32_t kSpeeds[] = {0,   50,   75,   110,  134,  150,  200,   300,
                                       600, 1200, 1800, 2400, 4800, 9600, 19200, 38400};
    static const uint32_t kExtended[] = {0,       57600,   115200,  230400,  460800,  500000,
                                         576000,  921600,  1000000, 1152000, 1500000, 2000000,
                                         2500000, 3000000, 3500000, 4000000};
    const uint32_t code = cflag & kBaudMask;
    return code < 16 ? kSpeeds[code] : kExtended[code & 15];
}

}  // namespace

Result<int64_t> Tty::set_attributes(Task& task, uint64_t argument, size_t size, bool flush_first) {
    TRY(check_foreground(task, SIGTTOU));
    uint8_t raw[sizeof(Termios)] = {};
    TRY(task.copy_in_bytes(raw, GuestAddr{argument}, size));
    MutexLock lock(mu_);
    Termios t = discipline_.termios();
    const Termios old = t;
    memcpy(&t, raw, size);
    if (const uint32_t speed = coded_speed(t.cflag); size == kTermiosSize || speed != 0) {
        t.ispeed = t.ospeed = speed;
    }
    // A pty has eight bits and always reads (Linux: pty_set_termios).
    t.cflag = (t.cflag & ~static_cast<uint32_t>(CSIZE | PARENB)) | CS8 | CREAD;
    if (flush_first) {
        discipline_.flush_input();
    }
    discipline_.set_termios(t);
    if (((old.iflag ^ t.iflag) & IXON) != 0) {
        note_packet_locked((t.iflag & IXON) != 0 ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP);
    }
    near_events_.notify(EPOLLIN | EPOLLOUT);
    far_events_.notify(EPOLLIN | EPOLLOUT);
    return 0;
}

void Tty::flush(int queue) {
    MutexLock lock(mu_);
    if (queue != TCOFLUSH) {
        discipline_.flush_input();
        note_packet_locked(TIOCPKT_FLUSHREAD);
    }
    if (queue != TCIFLUSH) {
        discipline_.flush_output();
        note_packet_locked(TIOCPKT_FLUSHWRITE);
    }
    near_events_.notify(EPOLLOUT);
    far_events_.notify(EPOLLOUT);
}

void Tty::flow(int action) {
    MutexLock lock(mu_);
    const Termios& t = discipline_.termios();
    switch (action) {
        case TCOOFF:
            discipline_.stop();
            note_packet_locked(TIOCPKT_STOP);
            break;
        case TCOON:
            discipline_.start();
            note_packet_locked(TIOCPKT_START);
            near_events_.notify(EPOLLOUT);
            break;
        case TCIOFF:
            discipline_.send_far(static_cast<char>(t.cc[VSTOP]));
            break;
        case TCION:
            discipline_.send_far(static_cast<char>(t.cc[VSTART]));
            break;
    }
    far_events_.notify(EPOLLIN);
}

Result<int64_t> Tty::ioctl(Task& task, Side side, uint32_t command, uint64_t argument) {
    if (side == Side::kNear) {
        MutexLock lock(mu_);
        if (hung_up_) {
            return Errno(command == TIOCSPGRP ? ENOTTY : EIO);
        }
    }
    switch (command) {
        case TCGETS:
        case kTcgets2: {
            Termios t;
            {
                MutexLock lock(mu_);
                t = discipline_.termios();
            }
            TRY(task.copy_out_bytes(GuestAddr{argument}, &t,
                                    command == TCGETS ? kTermiosSize : sizeof t));
            return 0;
        }
        // Output is never "on its way" here: it waits for the far side to take it, as with Linux's
        // ptys, so draining first (TCSETSW, tcdrain) has nothing to wait for.
        case TCSETS:
        case TCSETSW:
            return set_attributes(task, argument, kTermiosSize, false);
        case TCSETSF:
            return set_attributes(task, argument, kTermiosSize, true);
        case kTcsets2:
        case kTcsetsw2:
            return set_attributes(task, argument, sizeof(Termios), false);
        case kTcsetsf2:
            return set_attributes(task, argument, sizeof(Termios), true);
        case TIOCGWINSZ:
            TRY(task.copy_out(UserPtr<winsize>(argument), window_size()));
            return 0;
        case TIOCSWINSZ:
            set_window_size(TRY(task.copy_in(UserPtr<const winsize>(argument))));
            return 0;
        case TIOCSCTTY:
        case TIOCNOTTY:
        case TIOCGPGRP:
        case TIOCSPGRP:
        case TIOCGSID:
            return session_ioctl(task, side, command, argument);
        case TIOCOUTQ:
        case FIONREAD: {
            int32_t n;
            {
                MutexLock lock(mu_);
                const bool input = (command == FIONREAD) == (side == Side::kNear);
                n = static_cast<int32_t>(input ? discipline_.readable_bytes()
                                               : discipline_.output_pending());
            }
            TRY(task.copy_out(UserPtr<int32_t>(argument), n));
            return 0;
        }
        case TCFLSH:
            if (argument != TCIFLUSH && argument != TCOFLUSH && argument != TCIOFLUSH) {
                return Errno(EINVAL);
            }
            TRY(check_foreground(task, SIGTTOU));
            flush(static_cast<int>(argument));
            return 0;
        case TCXONC:
            if (argument > TCION) {
                return Errno(EINVAL);
            }
            TRY(check_foreground(task, SIGTTOU));
            flow(static_cast<int>(argument));
            return 0;
        case TCSBRK:
        case TCSBRKP:
            TRY(check_foreground(task, SIGTTOU));
            return 0;  // a pty has no line to break
        case TIOCEXCL:
        case TIOCNXCL: {
            MutexLock lock(mu_);
            exclusive_ = command == TIOCEXCL;
            return 0;
        }
        case TIOCGEXCL: {
            int32_t on;
            {
                MutexLock lock(mu_);
                on = exclusive_ ? 1 : 0;
            }
            TRY(task.copy_out(UserPtr<int32_t>(argument), on));
            return 0;
        }
        case TIOCGETD:
            TRY(task.copy_out(UserPtr<int32_t>(argument), 0));  // N_TTY
            return 0;
        case TIOCSETD:
            return TRY(task.copy_in(UserPtr<const int32_t>(argument))) == 0
                       ? Result<int64_t>(0)
                       : unsupported("ioctl TIOCSETD to another discipline", EINVAL);
        case TIOCGDEV:
            TRY(task.copy_out(UserPtr<uint32_t>(argument), static_cast<uint32_t>(rdev())));
            return 0;
        case TIOCSTI:
            return Errno(EIO);  // as with dev.tty.legacy_tiocsti=0: typing for others is an attack
        case TIOCCONS:
            return Errno(EPERM);
        default:
            return Errno(ENOTTY);
    }
}

// ---------------------------------------------------------------- the far side's own

Result<size_t> PtyMasterFile::read(Task&, IoBuffer& destination) {
    return tty_->far_read(destination);
}

Result<size_t> PtyMasterFile::write(Task&, IoBuffer& source) { return tty_->far_write(source); }

Result<int64_t> PtyMasterFile::open_peer(Task& task, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(O_ACCMODE | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)) != 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> peer;
    const auto directory = path() ? path().dentry()->parent() : nullptr;
    if (directory) {
        const Path name = TRY(
            lookup_child(task, Path(path().mount_ref(), directory), std::to_string(tty_->index())));
        peer = TRY(name.dentry()->inode()->open(task, name, flags));
    } else {
        peer = TRY(tty_->open_near(task, flags));
    }
    const Fd fd = TRY(task.fds().install(
        std::move(peer), (flags & O_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
        task.rlimit(RLIMIT_NOFILE)));
    return to_integer(fd);
}

Result<int64_t> PtyMasterFile::ioctl(Task& task, uint32_t command, uint64_t argument) {
    const UserPtr<int32_t> number(argument);
    switch (command) {
        case TIOCGPTN:
            TRY(task.copy_out(number, static_cast<int32_t>(tty_->index())));
            return 0;
        case TIOCSPTLCK:
            tty_->set_locked(TRY(task.copy_in(number)) != 0);
            return 0;
        case TIOCGPTLCK:
            TRY(task.copy_out(number, tty_->locked() ? 1 : 0));
            return 0;
        case TIOCPKT:
            tty_->set_packet_mode(TRY(task.copy_in(number)) != 0);
            return 0;
        case TIOCGPKT:
            TRY(task.copy_out(number, tty_->packet_mode() ? 1 : 0));
            return 0;
        case TIOCSIG:
            if (argument < 1 || argument > kSignalCount) {
                return Errno(EINVAL);
            }
            TRY(tty_->signal_foreground(static_cast<int>(argument)));
            return 0;
        case TIOCGPTPEER:
            return open_peer(task, static_cast<uint32_t>(argument));
        default:
            return tty_->ioctl(task, Tty::Side::kFar, command, argument);
    }
}

}  // namespace moat::kernel
