#include "kernel/task/signal.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kSynchronous = signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) |
                                  signal_bit(SIGTRAP) | signal_bit(SIGFPE) | signal_bit(SIGSYS);

}  // namespace

SignalInfo SignalInfo::from_process(int signal, int code, int32_t pid, uint32_t uid) {
    SignalInfo info;
    info.signo = signal;
    info.code = code;
    info.process.pid = pid;
    info.process.uid = uid;
    return info;
}

SignalInfo SignalInfo::from_kernel(int signal) {
    SignalInfo info;
    info.signo = signal;
    info.code = SI_KERNEL;
    return info;
}

bool PendingSignals::add(const SignalInfo& info) {
    const uint64_t bit = signal_bit(info.signo);
    if (info.signo < SIGRTMIN - 2 && (set_ & bit) != 0) {  // libc keeps two below its SIGRTMIN
        return false;
    }
    set_ |= bit;
    queue_.push_back(info);
    return true;
}

bool PendingSignals::take(uint64_t wanted, SignalInfo& info) {
    uint64_t candidates = set_ & wanted;
    if (candidates == 0) {
        return false;
    }
    if ((candidates & kSynchronous) != 0) {
        candidates &= kSynchronous;
    }
    const int signal = __builtin_ctzll(candidates) + 1;
    bool found = false;
    bool more = false;
    for (auto it = queue_.begin(); it != queue_.end();) {
        if (it->signo == signal) {
            if (!found) {
                info = *it;
                it = queue_.erase(it);
                found = true;
                continue;
            }
            more = true;
            break;
        }
        ++it;
    }
    if (!more) {
        set_ &= ~signal_bit(signal);
    }
    return found;
}

void PendingSignals::discard(uint64_t signals) {
    if ((set_ & signals) == 0) {
        return;
    }
    set_ &= ~signals;
    queue_.remove_if([&](const SignalInfo& s) { return (signal_bit(s.signo) & signals) != 0; });
}

DefaultAction default_action(int signal) {
    switch (signal) {
        case SIGCHLD:
        case SIGURG:
        case SIGWINCH:
            return DefaultAction::kIgnore;
        case SIGCONT:
            return DefaultAction::kContinue;
        case SIGSTOP:
        case SIGTSTP:
        case SIGTTIN:
        case SIGTTOU:
            return DefaultAction::kStop;
        case SIGQUIT:
        case SIGILL:
        case SIGABRT:
        case SIGFPE:
        case SIGSEGV:
        case SIGBUS:
        case SIGSYS:
        case SIGTRAP:
        case SIGXCPU:
        case SIGXFSZ:
            return DefaultAction::kCore;
        default:
            return DefaultAction::kTerminate;
    }
}

}  // namespace moat::kernel
