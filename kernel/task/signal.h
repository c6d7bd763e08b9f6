#pragma once

#include <signal.h>

#include <cstdint>
#include <list>

namespace moat::kernel {

inline constexpr int kSignalCount = 64;
constexpr uint64_t signal_bit(int signal) { return 1ull << (signal - 1); }
/// Neither can be blocked, ignored or handled.
inline constexpr uint64_t kUnblockable = signal_bit(SIGKILL) | signal_bit(SIGSTOP);

/// The kernel's siginfo_t as a guest sees it: 128 bytes.
struct SignalInfo {
    int32_t signo = 0;
    int32_t error = 0;
    int32_t code = 0;
    int32_t padding = 0;
    union {
        struct {
            int32_t pid;
            uint32_t uid;
            union {
                uint64_t value;  // sigqueue, timers
                int32_t status;  // SIGCHLD
            };
            int64_t utime;
            int64_t stime;
        } process;
        struct {
            int32_t timer_id;
            int32_t overrun;
            uint64_t value;
        } timer;
        struct {
            uint64_t address;
        } fault;
        struct {
            int64_t band;
            int32_t fd;
        } poll;
        uint8_t raw[112];
    };
    SignalInfo() : raw{} {}

    /// kill(2), tgkill(2): `code` is SI_USER, SI_TKILL...
    static SignalInfo from_process(int signal, int code, int32_t pid, uint32_t uid);
    /// From the kernel itself (SI_KERNEL): terminals, SIGPIPE.
    static SignalInfo from_kernel(int signal);
};
static_assert(sizeof(SignalInfo) == 128);

/// struct kernel_sigaction.
struct SignalAction {
    uint64_t handler = 0;  ///< 0 SIG_DFL, 1 SIG_IGN
    uint64_t flags = 0;
    uint64_t restorer = 0;
    uint64_t mask = 0;
};

/// SS_AUTODISARM: no alternate stack while a handler runs on it.
inline constexpr uint32_t kAutoDisarm = 1u << 31;

/// sigaltstack(2).
struct AlternateStack {
    uint64_t base = 0;
    uint32_t flags = SS_DISABLE;  ///< SS_DISABLE, kAutoDisarm
    uint64_t size = 0;
};

/// Pending signals of a thread or of its group. Standard signals are queued once, real-time signals
/// each (signal(7)).
class PendingSignals {
  public:
    uint64_t set() const { return set_; }
    /// False: a standard signal that was pending already. EAGAIN's limit is the caller's to check.
    bool add(const SignalInfo& info);
    /// Takes one of those in `wanted`: synchronous faults first, then the lowest. False: none.
    bool take(uint64_t wanted, SignalInfo& info);
    void discard(uint64_t signals);
    size_t size() const { return queue_.size(); }

  private:
    uint64_t set_ = 0;
    std::list<SignalInfo> queue_;
};

enum class DefaultAction : uint8_t { kTerminate, kCore, kIgnore, kStop, kContinue };
DefaultAction default_action(int signal);

}  // namespace moat::kernel
