#include "kernel/platform/filter.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

/// A place in the program that jumps lead to before it is known. Unbound at the end: a bug.
class Label {
  public:
    ~Label() { CHECK(jumps_.empty()); }

  private:
    friend class Program;
    struct Jump {
        size_t index;
        bool if_true;
    };
    std::vector<Jump> jumps_;
};

class Program {
  public:
    void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
    void ret(uint32_t action) { add(BPF_RET | BPF_K, action); }
    void add(uint16_t code, uint32_t value = 0) { code_.push_back(BPF_STMT(code, value)); }
    /// A conditional jump: BPF_JEQ, BPF_JGE or BPF_JSET with `value` (or, BPF_X, with X). A null
    /// label is the next instruction.
    void jump(uint16_t test, uint32_t value, Label* if_true, Label* if_false) {
        note(if_true, true);
        note(if_false, false);
        code_.push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test), value, 0, 0));
    }
    void jump_equal(uint32_t value, Label* if_true, Label* if_false) {
        jump(BPF_JEQ | BPF_K, value, if_true, if_false);
    }
    void jump_at_least(uint32_t value, Label* if_true, Label* if_false) {
        jump(BPF_JGE | BPF_K, value, if_true, if_false);
    }
    void jump_always(Label* label) { jump_at_least(0, label, label); }
    /// The jumps to `label` lead to the next instruction to be added.
    void bind(Label& label) {
        for (const auto& [index, if_true] : label.jumps_) {
            const size_t distance = code_.size() - index - 1;
            CHECK(distance <= UINT8_MAX);
            (if_true ? code_[index].jt : code_[index].jf) = static_cast<uint8_t>(distance);
        }
        label.jumps_.clear();
    }
    std::vector<sock_filter> take() {
        CHECK(code_.size() <= MOAT_FILTER_SIZE);
        return std::move(code_);
    }

  private:
    void note(Label* label, bool if_true) {
        if (label != nullptr) {
            label->jumps_.push_back({code_.size(), if_true});
        }
    }
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

/// Loads an argument that is an int to the host; one with more bits goes to `otherwise`.
void load_int(Program& p, int argument, Label* otherwise) {
    p.load(argument_low(argument) + 4);
    p.jump_equal(0, nullptr, otherwise);
    p.load(argument_low(argument));
}

/// [address, address + size), the first two arguments, lies below the stub's area; sizes of 4 GiB
/// and more are not looked at.
void jump_by_range(Program& p, Label* below, Label* otherwise) {
    p.load(argument_low(1) + 4);
    p.jump_equal(0, nullptr, otherwise);
    p.load(argument_low(0) + 4);
    Label near;
    p.jump_at_least(high(MOAT_STUB_BASE) - 1, &near, below);  // the end's is at most one more
    p.bind(near);
    p.jump_equal(high(MOAT_STUB_BASE), nullptr, otherwise);
    constexpr uint32_t kBeyond = low(MOAT_STUB_BASE) - 0xfff;  // the host rounds up to pages
    p.load(argument_low(0));
    p.jump_at_least(kBeyond, otherwise, nullptr);
    p.add(BPF_MISC | BPF_TAX);
    p.load(argument_low(1));
    p.jump_at_least(kBeyond, otherwise, nullptr);
    p.add(BPF_ALU | BPF_ADD | BPF_X);
    p.jump(BPF_JGE | BPF_X, 0, nullptr, otherwise);  // less than a summand: it has overflowed
    p.jump_at_least(kBeyond, otherwise, below);
}

void test_futex_operation(Program& p, Label* direct, Label* otherwise) {
    load_int(p, 1, otherwise);
    p.add(BPF_ALU | BPF_AND | BPF_K, ~static_cast<uint32_t>(FUTEX_CLOCK_REALTIME));
    for (const uint32_t operation : kDirectFutexOperations) {
        p.jump_equal(operation, direct, nullptr);
    }
    p.jump_always(otherwise);
}

/// The direct calls, with the call's number loaded: allowed, or notified where they may touch the
/// stub or change more than the caller's own memory. For other calls the program goes on behind.
void add_direct_calls(Program& p, Label* trap, bool direct_brk) {
    Label allow, notify, range;
    if (direct_brk) {
        p.jump_equal(SYS_brk, &allow, nullptr);  // never over what is there, the stub included
    }
    // Private and anonymous, and nothing that the sentry answers otherwise than the host. The host
    // does not look at the descriptor. A file's mapping is an order, so it comes with registers.
    Label not_mmap;
    p.jump_equal(SYS_mmap, nullptr, &not_mmap);
    p.load(argument_low(3));
    p.jump(BPF_JSET | BPF_K, MAP_ANONYMOUS, nullptr, trap);
    load_int(p, 2, &notify);
    p.jump_at_least((PROT_READ | PROT_WRITE | PROT_EXEC) + 1, &notify, nullptr);
    load_int(p, 3, &notify);
    p.add(BPF_ALU | BPF_AND | BPF_K, ~static_cast<uint32_t>(MAP_FIXED | MAP_NORESERVE | MAP_STACK));
    p.jump_equal(MAP_PRIVATE | MAP_ANONYMOUS, nullptr, &notify);
    p.load(argument_low(3));
    p.jump(BPF_JSET | BPF_K, MAP_FIXED, &range, nullptr);
    p.load(argument_low(0));
    p.jump_equal(0, nullptr, &range);
    p.load(argument_low(0) + 4);
    p.jump_equal(0, &allow, &range);  // the host takes a free place, whatever the size
    p.bind(not_mmap);
    // To where the host likes; it never grows over what is there.
    Label not_mremap;
    p.jump_equal(SYS_mremap, nullptr, &not_mremap);
    load_int(p, 3, &notify);
    p.jump_at_least(MREMAP_MAYMOVE + 1, &notify, &range);
    p.bind(not_mremap);
    Label not_madvise;
    p.jump_equal(SYS_madvise, nullptr, &not_madvise);
    load_int(p, 2, &notify);
    p.jump_at_least(32, &notify, nullptr);
    p.add(BPF_MISC | BPF_TAX);
    p.add(BPF_LD | BPF_IMM, 1);
    p.add(BPF_ALU | BPF_LSH | BPF_X);
    p.jump(BPF_JSET | BPF_K, kHarmlessAdvice, &range, &notify);
    p.bind(not_madvise);
    Label not_futex;
    p.jump_equal(SYS_futex, nullptr, &not_futex);
    test_futex_operation(p, &allow, &notify);
    p.bind(not_futex);
    Label other;
    p.jump_equal(SYS_munmap, &range, nullptr);
    p.jump_equal(SYS_mprotect, &range, &other);
    p.bind(range);
    jump_by_range(p, &allow, &notify);
    p.bind(allow);
    p.ret(SECCOMP_RET_ALLOW);
    p.bind(notify);
    p.ret(SECCOMP_RET_USER_NOTIF);
    p.bind(other);
}

}  // namespace

bool host_keeps_heap() {
    static const bool keeps = [] {
        unsigned size = 0;
        return ::prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0 &&
               size == sizeof(prctl_mm_map);
    }();
    return keeps;
}

std::vector<sock_filter> build_guest_filter(bool direct_brk) {
    Program p;
    // 32-bit and x32 entries have other tables: no guest of ours is built for them.
    Label right_arch;
    p.load(kArch);
    p.jump_equal(AUDIT_ARCH_X86_64, &right_arch, nullptr);
    p.ret(SECCOMP_RET_KILL_PROCESS);
    p.bind(right_arch);
    // Outside the stub, or a call that the stub's instruction is not meant for: the general rules.
    Label general;
    const auto only_if = [&](uint32_t value) { p.jump_equal(value, nullptr, &general); };
    p.load(kIp + 4);
    only_if(high(MOAT_STUB_BASE));
    p.load(kIp);

    // The stub's batch instruction: injected calls. The sentry compares number and all six
    // arguments with what it ordered before it lets them run.
    Label not_batch;
    p.jump_equal(low(after(MOAT_STUB_BATCH_INSTRUCTION)), nullptr, &not_batch);
    p.ret(SECCOMP_RET_USER_NOTIF);
    p.bind(not_batch);
    // The way out of the stub. A forged frame changes only the guest's own registers and its host
    // signal mask; a thread that blocks the kick that way is found and killed (kick_watch.h).
    Label not_sigreturn;
    p.jump_equal(low(after(MOAT_STUB_SIGRETURN_INSTRUCTION)), nullptr, &not_sigreturn);
    p.load(kNr);
    only_if(SYS_rt_sigreturn);
    p.ret(SECCOMP_RET_ALLOW);
    p.bind(not_sigreturn);
    // A new thread drops its own number of its listener; a forged one harms its own process only.
    // So do a process that has forked and its child with the number of the child's area.
    Label close, not_close;
    p.jump_equal(low(after(MOAT_STUB_CLOSE_INSTRUCTION)), &close, nullptr);
    p.jump_equal(low(after(MOAT_STUB_FORK_CLOSE_INSTRUCTION)), nullptr, &not_close);
    p.bind(close);
    p.load(kNr);
    only_if(SYS_close);
    p.ret(SECCOMP_RET_ALLOW);
    p.bind(not_close);
    // A forked child maps its area. Where nothing is lent at that number the call fails.
    Label not_map;
    p.jump_equal(low(after(MOAT_STUB_MAP_INSTRUCTION)), nullptr, &not_map);
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
    p.bind(not_map);
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
    p.bind(general);

    p.load(kNr);
    Label native, trap;
    p.jump_at_least(0x40000000, nullptr, &native);
    p.ret(SECCOMP_RET_KILL_PROCESS);
    p.bind(native);
    for (const uint32_t number : kTrapped) {
        p.jump_equal(number, &trap, nullptr);
    }
    add_direct_calls(p, &trap, direct_brk);
    p.ret(SECCOMP_RET_USER_NOTIF);
    p.bind(trap);
    p.ret(SECCOMP_RET_TRAP);
    return p.take();
}

std::vector<sock_filter> build_ending_filter(DirectCalls group) {
    Program p;
    Label allow, trap;
    p.load(kArch);
    p.jump_equal(AUDIT_ARCH_X86_64, nullptr, &allow);  // the guest filter's to refuse
    // But for what the sentry orders, and a forked child's mapping of its area.
    Label guests;
    p.load(kIp + 4);
    p.jump_equal(high(MOAT_STUB_BASE), nullptr, &guests);
    p.load(kIp);
    p.jump_equal(low(after(MOAT_STUB_BATCH_INSTRUCTION)), &allow, nullptr);
    p.jump_equal(low(after(MOAT_STUB_MAP_INSTRUCTION)), nullptr, &guests);
    p.load(argument_low(0));
    p.jump_equal(low(MOAT_AREA_BASE), nullptr, &guests);
    p.load(argument_low(0) + 4);
    p.jump_equal(high(MOAT_AREA_BASE), &allow, &guests);
    p.bind(guests);
    p.load(kNr);
    if (group == kFutexCalls) {
        p.jump_equal(SYS_futex, nullptr, &allow);
        test_futex_operation(p, &trap, &allow);
    } else {
        for (const uint32_t number : kMemoryCallNumbers) {
            p.jump_equal(number, &trap, nullptr);
        }
    }
    p.bind(allow);
    p.ret(SECCOMP_RET_ALLOW);
    p.bind(trap);
    p.ret(SECCOMP_RET_TRAP);
    return p.take();
}

}  // namespace moat::platform
