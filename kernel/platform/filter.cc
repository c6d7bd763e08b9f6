#include "kernel/platform/filter.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>

#include "kernel/base/check.h"
#include "kernel/platform/layout.h"
#include "stub_symbols.h"

namespace moat::platform {

namespace {

/// Calls whose handlers nearly always need the caller's registers or injected calls: they come with
/// a full frame by SIGSYS. Any other call can be brought into the stub when its handler asks
/// (kNeedStub).
constexpr uint32_t kTrapped[] = {
    SYS_clone, SYS_fork, SYS_vfork, SYS_execve, SYS_execveat, SYS_exit, SYS_rt_sigreturn,
};

class Program {
  public:
    void load(size_t offset) {
        code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
    }
    void ret(uint32_t action) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, action)); }
    void jump_equal(uint32_t value, uint8_t if_true, uint8_t if_false) {
        code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, if_true, if_false));
    }
    void jump_at_least(uint32_t value, uint8_t if_true, uint8_t if_false) {
        code_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, value, if_true, if_false));
    }
    size_t size() const { return code_.size(); }
    /// Sets the false branch of the instruction at `index` to lead to the next one to be added.
    void land_false(size_t index) { code_[index].jf = static_cast<uint8_t>(size() - index - 1); }
    std::vector<sock_filter> take() { return std::move(code_); }

  private:
    std::vector<sock_filter> code_;
};

constexpr size_t kNr = offsetof(seccomp_data, nr);
constexpr size_t kArch = offsetof(seccomp_data, arch);
constexpr size_t kIp = offsetof(seccomp_data, instruction_pointer);
constexpr size_t argument_low(int i) { return offsetof(seccomp_data, args) + 8 * i; }
constexpr uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
constexpr uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
/// seccomp_data has the address after the two-byte syscall instruction.
constexpr uint64_t after(uint64_t instruction) { return instruction + 2; }

}  // namespace

std::vector<sock_filter> build_guest_filter() {
    Program p;
    // 32-bit and x32 entries have other tables: no guest of ours is built for them.
    p.load(kArch);
    p.jump_equal(AUDIT_ARCH_X86_64, 1, 0);
    p.ret(SECCOMP_RET_KILL_PROCESS);
    // Outside the stub, or a call that the stub's instruction is not meant for: the general rules.
    std::vector<size_t> to_general;
    const auto only_if = [&](uint32_t value) {
        to_general.push_back(p.size());
        p.jump_equal(value, 0, 0);
    };
    p.load(kIp + 4);
    only_if(high(MOAT_STUB_BASE));
    p.load(kIp);

    // The stub's batch instruction: injected calls. The sentry compares number and all six
    // arguments with what it ordered before it lets them run.
    p.jump_equal(low(after(MOAT_STUB_BATCH_INSTRUCTION)), 0, 1);
    p.ret(SECCOMP_RET_USER_NOTIF);
    // The way out of the stub. A forged frame changes only the guest's own registers and its host
    // signal mask; a thread that blocks the kick that way is found and killed (kick_watch.h).
    p.jump_equal(low(after(MOAT_STUB_SIGRETURN_INSTRUCTION)), 0, 3);
    p.load(kNr);
    only_if(SYS_rt_sigreturn);
    p.ret(SECCOMP_RET_ALLOW);
    // A new thread drops its own number of its listener; a forged one harms its own process only.
    p.jump_equal(low(after(MOAT_STUB_CLOSE_INSTRUCTION)), 0, 3);
    p.load(kNr);
    only_if(SYS_close);
    p.ret(SECCOMP_RET_ALLOW);
    // So do a process that has forked and its child with the number of the child's area.
    p.jump_equal(low(after(MOAT_STUB_FORK_CLOSE_INSTRUCTION)), 0, 3);
    p.load(kNr);
    only_if(SYS_close);
    p.ret(SECCOMP_RET_ALLOW);
    // A forked child maps its area. Where nothing is lent at that number the call fails.
    const size_t map_rules = p.size();
    p.jump_equal(low(after(MOAT_STUB_MAP_INSTRUCTION)), 0, 0);
    p.load(kNr);
    only_if(SYS_mmap);
    constexpr uint64_t kMapArguments[] = {MOAT_AREA_BASE,         MOAT_AREA_SIZE,
                                          PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                                          MOAT_AREA_FD,           0};
    for (int i = 0; i < 6; i++) {
        p.load(argument_low(i));
        only_if(low(kMapArguments[i]));
        p.load(argument_low(i) + 4);
        only_if(high(kMapArguments[i]));
    }
    p.ret(SECCOMP_RET_ALLOW);
    p.land_false(map_rules);
    // A new thread tells the sentry about its listener: FUTEX_WAKE on one word of its own area.
    only_if(low(after(MOAT_STUB_WAKE_INSTRUCTION)));
    p.load(kNr);
    only_if(SYS_futex);
    p.load(argument_low(0));
    only_if(low(MOAT_AREA_BASE + MOAT_H_DONE));
    p.load(argument_low(0) + 4);
    only_if(high(MOAT_AREA_BASE));
    p.load(argument_low(1));
    only_if(FUTEX_WAKE);
    p.ret(SECCOMP_RET_ALLOW);
    for (const size_t index : to_general) {
        p.land_false(index);
    }

    p.load(kNr);
    p.jump_at_least(0x40000000, 0, 1);
    p.ret(SECCOMP_RET_KILL_PROCESS);
    const size_t count = sizeof kTrapped / sizeof *kTrapped;
    for (size_t i = 0; i < count; i++) {
        p.jump_equal(kTrapped[i], static_cast<uint8_t>(count - i), 0);
    }
    p.ret(SECCOMP_RET_USER_NOTIF);
    p.ret(SECCOMP_RET_TRAP);
    CHECK(p.size() <= 96);
    return p.take();
}

}  // namespace moat::platform
