#include "kernel/fs/signalfd/signalfd.h"

#include <fcntl.h>
#include <sys/signalfd.h>

#include "kernel/fs/pipe/anonymous.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// Linux: fs/signalfd.c:signalfd_copyinfo.
signalfd_siginfo to_record(const SignalInfo& info) {
    signalfd_siginfo record{};
    record.ssi_signo = static_cast<uint32_t>(info.signo);
    record.ssi_errno = info.error;
    record.ssi_code = info.code;
    if (info.code == SI_TIMER) {
        record.ssi_tid = static_cast<uint32_t>(info.timer.timer_id);
        record.ssi_overrun = static_cast<uint32_t>(info.timer.overrun);
        record.ssi_ptr = info.timer.value;
        record.ssi_int = static_cast<int32_t>(info.timer.value);
        return record;
    }
    if (info.code > 0 && info.code != SI_KERNEL) {
        switch (info.signo) {
            case SIGSEGV:
            case SIGBUS:
            case SIGILL:
            case SIGFPE:
            case SIGTRAP:
                record.ssi_addr = info.fault.address;
                return record;
            case SIGIO:
                record.ssi_band = static_cast<uint32_t>(info.poll.band);
                record.ssi_fd = info.poll.fd;
                return record;
            default:
                break;
        }
    }
    record.ssi_pid = static_cast<uint32_t>(info.process.pid);
    record.ssi_uid = info.process.uid;
    if (info.signo == SIGCHLD && info.code > 0) {
        record.ssi_status = info.process.status;
        record.ssi_utime = static_cast<uint64_t>(info.process.utime);
        record.ssi_stime = static_cast<uint64_t>(info.process.stime);
    } else {
        record.ssi_ptr = info.process.value;
        record.ssi_int = static_cast<int32_t>(info.process.value);
    }
    return record;
}

}  // namespace

SignalFile::SignalFile(Task& maker, uint64_t mask, uint32_t flags)
    : File(O_RDWR | flags), maker_group_(&maker.group()), mask_(mask & ~kUnblockable) {}

SignalFile::~SignalFile() = default;

void SignalFile::set_mask(uint64_t mask) {
    mask_.store(mask & ~kUnblockable, std::memory_order_relaxed);
    maker_group_->signal_events().notify(EPOLLIN);  // signals of the new mask may be pending
}

Result<size_t> SignalFile::read(Task& task, IoBuffer& destination) {
    if (destination.remaining() < sizeof(signalfd_siginfo)) {
        return Errno(EINVAL);
    }
    size_t done = 0;
    while (destination.remaining() >= sizeof(signalfd_siginfo)) {
        SignalInfo info;
        if (!take_signal(task, mask(), info)) {
            break;
        }
        const signalfd_siginfo record = to_record(info);
        const Result<size_t> copied = destination.put(&record, sizeof record);
        if (!copied.ok() || *copied != sizeof record) {
            if (done > 0) {
                return done;
            }
            return Errno(EFAULT);
        }
        done += sizeof record;
    }
    if (done == 0) {
        return Errno(EAGAIN);
    }
    return done;
}

Result<struct stat> SignalFile::stat(Task&) { return anonymous_stat(1, 0600, 0, 0); }

PollMask SignalFile::poll() {
    const RefPtr<Task> leader = maker_group_->leader();
    return leader && (pending_signals(*leader) & mask()) != 0 ? EPOLLIN : 0u;
}

}  // namespace moat::kernel
