#include "kernel/task/seccomp_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <string.h>

#include <cstddef>

#include "kernel/base/check.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kMaxPath = (1 << 18) / sizeof(sock_filter);  // MAX_INSNS_PER_PATH
constexpr uint32_t kFilterPenalty = 4;
constexpr size_t kDataSize = sizeof(seccomp_data);

/// Linux: kernel/seccomp.c:seccomp_check_filter.
bool is_known(uint16_t code) {
    switch (code) {
        case BPF_LD | BPF_W | BPF_ABS:
        case BPF_LD | BPF_W | BPF_LEN:
        case BPF_LDX | BPF_W | BPF_LEN:
        case BPF_RET | BPF_K:
        case BPF_RET | BPF_A:
        case BPF_ALU | BPF_ADD | BPF_K:
        case BPF_ALU | BPF_ADD | BPF_X:
        case BPF_ALU | BPF_SUB | BPF_K:
        case BPF_ALU | BPF_SUB | BPF_X:
        case BPF_ALU | BPF_MUL | BPF_K:
        case BPF_ALU | BPF_MUL | BPF_X:
        case BPF_ALU | BPF_DIV | BPF_K:
        case BPF_ALU | BPF_DIV | BPF_X:
        case BPF_ALU | BPF_AND | BPF_K:
        case BPF_ALU | BPF_AND | BPF_X:
        case BPF_ALU | BPF_OR | BPF_K:
        case BPF_ALU | BPF_OR | BPF_X:
        case BPF_ALU | BPF_XOR | BPF_K:
        case BPF_ALU | BPF_XOR | BPF_X:
        case BPF_ALU | BPF_LSH | BPF_K:
        case BPF_ALU | BPF_LSH | BPF_X:
        case BPF_ALU | BPF_RSH | BPF_K:
        case BPF_ALU | BPF_RSH | BPF_X:
        case BPF_ALU | BPF_NEG:
        case BPF_LD | BPF_IMM:
        case BPF_LDX | BPF_IMM:
        case BPF_MISC | BPF_TAX:
        case BPF_MISC | BPF_TXA:
        case BPF_LD | BPF_MEM:
        case BPF_LDX | BPF_MEM:
        case BPF_ST:
        case BPF_STX:
        case BPF_JMP | BPF_JA:
        case BPF_JMP | BPF_JEQ | BPF_K:
        case BPF_JMP | BPF_JEQ | BPF_X:
        case BPF_JMP | BPF_JGE | BPF_K:
        case BPF_JMP | BPF_JGE | BPF_X:
        case BPF_JMP | BPF_JGT | BPF_K:
        case BPF_JMP | BPF_JGT | BPF_X:
        case BPF_JMP | BPF_JSET | BPF_K:
        case BPF_JMP | BPF_JSET | BPF_X:
            return true;
        default:
            return false;
    }
}

/// Every jump stays inside and goes forward (so it ends), every load is in bounds.
bool is_well_formed(std::span<const sock_filter> program) {
    const size_t size = program.size();
    for (size_t pc = 0; pc < size; pc++) {
        const sock_filter& i = program[pc];
        if (!is_known(i.code)) {
            return false;
        }
        switch (i.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                if (i.k >= kDataSize || (i.k & 3) != 0) {
                    return false;
                }
                break;
            case BPF_ALU | BPF_DIV | BPF_K:
                if (i.k == 0) {
                    return false;
                }
                break;
            case BPF_ALU | BPF_LSH | BPF_K:
            case BPF_ALU | BPF_RSH | BPF_K:
                if (i.k >= 32) {
                    return false;
                }
                break;
            case BPF_LD | BPF_MEM:
            case BPF_LDX | BPF_MEM:
            case BPF_ST:
            case BPF_STX:
                if (i.k >= BPF_MEMWORDS) {
                    return false;
                }
                break;
            case BPF_JMP | BPF_JA:
                if (i.k >= size - pc - 1) {
                    return false;
                }
                break;
            default:
                if (BPF_CLASS(i.code) == BPF_JMP &&
                    (pc + i.jt + 1 >= size || pc + i.jf + 1 >= size)) {
                    return false;
                }
                break;
        }
    }
    return BPF_CLASS(program[size - 1].code) == BPF_RET;
}

/// No path reads a word of scratch memory that it has not written (Linux: check_load_and_stores).
bool reads_only_written(std::span<const sock_filter> program) {
    std::vector<uint16_t> valid_at(program.size(), 0xffff);  // words valid on every way here
    uint16_t valid = 0;
    for (size_t pc = 0; pc < program.size(); pc++) {
        const sock_filter& i = program[pc];
        valid &= valid_at[pc];
        switch (i.code) {
            case BPF_ST:
            case BPF_STX:
                valid = static_cast<uint16_t>(valid | 1u << i.k);
                break;
            case BPF_LD | BPF_MEM:
            case BPF_LDX | BPF_MEM:
                if ((valid >> i.k & 1) == 0) {
                    return false;
                }
                break;
            case BPF_JMP | BPF_JA:
                valid_at[pc + 1 + i.k] &= valid;
                valid = 0xffff;
                break;
            default:
                if (BPF_CLASS(i.code) == BPF_JMP) {
                    valid_at[pc + 1 + i.jt] &= valid;
                    valid_at[pc + 1 + i.jf] &= valid;
                    valid = 0xffff;
                }
                break;
        }
    }
    return true;
}

uint32_t load(const seccomp_data& data, uint32_t offset) {
    uint32_t word;
    memcpy(&word, reinterpret_cast<const char*>(&data) + offset, sizeof word);
    return word;
}

bool compare(uint16_t code, uint32_t a, uint32_t b) {
    switch (BPF_OP(code)) {
        case BPF_JEQ:
            return a == b;
        case BPF_JGE:
            return a >= b;
        case BPF_JGT:
            return a > b;
        default:
            return (a & b) != 0;
    }
}

/// False: a division by zero, which ends the program with 0 (KILL_THREAD).
bool compute(uint16_t code, uint32_t& a, uint32_t b) {
    switch (BPF_OP(code)) {
        case BPF_ADD:
            a += b;
            break;
        case BPF_SUB:
            a -= b;
            break;
        case BPF_MUL:
            a *= b;
            break;
        case BPF_DIV:
            if (b == 0) {
                return false;
            }
            a /= b;
            break;
        case BPF_AND:
            a &= b;
            break;
        case BPF_OR:
            a |= b;
            break;
        case BPF_XOR:
            a ^= b;
            break;
        case BPF_LSH:
            a <<= b & 31;
            break;
        case BPF_RSH:
            a >>= b & 31;
            break;
        default:
            a = -a;
            break;
    }
    return true;
}

/// Actions compare as signed numbers: KILL_PROCESS is the smallest, ALLOW the largest.
int32_t strictness(uint32_t result) {
    return static_cast<int32_t>(result & SECCOMP_RET_ACTION_FULL);
}

}  // namespace

SeccompFilter::SeccompFilter(std::span<const sock_filter> program,
                             RefPtr<const SeccompFilter> previous, Log log)
    : program_(program.begin(), program.end()),
      previous_(std::move(previous)),
      log_(log),
      count_(previous_ ? previous_->count_ + 1 : 1),
      path_instructions_(static_cast<uint32_t>(program.size()) +
                         (previous_ ? previous_->path_instructions_ + kFilterPenalty : 0)) {}

// One after the other: a chain may be long enough to overflow a stack.
SeccompFilter::~SeccompFilter() {
    RefPtr<const SeccompFilter> next = std::move(previous_);
    while (next && next->ref_count() == 1) {
        next = std::move(const_cast<SeccompFilter*>(next.get())->previous_);
    }
}

Result<RefPtr<SeccompFilter>> SeccompFilter::create(std::span<const sock_filter> program,
                                                    RefPtr<const SeccompFilter> previous, Log log) {
    if (program.empty() || program.size() > BPF_MAXINSNS || !is_well_formed(program) ||
        !reads_only_written(program)) {
        return Errno(EINVAL);
    }
    auto filter = adopt_ref(new SeccompFilter(program, std::move(previous), log));
    if (filter->path_instructions_ > kMaxPath) {
        return Errno(ENOMEM);
    }
    return filter;
}

bool SeccompFilter::is_above(const SeccompFilter* other) const {
    if (other == nullptr) {
        return true;
    }
    for (const SeccompFilter* f = this; f != nullptr; f = f->previous_.get()) {
        if (f == other) {
            return true;
        }
    }
    return false;
}

uint32_t SeccompFilter::run(const seccomp_data& data) const {
    uint32_t a = 0, x = 0;
    uint32_t memory[BPF_MEMWORDS];  // each word is written before it is read, see create()
    for (size_t pc = 0;; pc++) {
        const sock_filter& i = program_[pc];
        const uint32_t operand = BPF_SRC(i.code) == BPF_X ? x : i.k;
        switch (BPF_CLASS(i.code)) {
            case BPF_LD:
                switch (BPF_MODE(i.code)) {
                    case BPF_ABS:
                        a = load(data, i.k);
                        break;
                    case BPF_LEN:
                        a = kDataSize;
                        break;
                    case BPF_MEM:
                        a = memory[i.k];
                        break;
                    default:
                        a = i.k;
                        break;
                }
                break;
            case BPF_LDX:
                x = BPF_MODE(i.code) == BPF_LEN   ? static_cast<uint32_t>(kDataSize)
                    : BPF_MODE(i.code) == BPF_MEM ? memory[i.k]
                                                  : i.k;
                break;
            case BPF_ST:
                memory[i.k] = a;
                break;
            case BPF_STX:
                memory[i.k] = x;
                break;
            case BPF_ALU:
                if (!compute(i.code, a, operand)) {
                    return 0;
                }
                break;
            case BPF_JMP:
                if (BPF_OP(i.code) == BPF_JA) {
                    pc += i.k;
                } else {
                    pc += compare(i.code, a, operand) ? i.jt : i.jf;
                }
                break;
            case BPF_RET:
                return BPF_RVAL(i.code) == BPF_A ? a : i.k;
            default:
                if (BPF_MISCOP(i.code) == BPF_TAX) {
                    x = a;
                } else {
                    a = x;
                }
                break;
        }
    }
}

// Linux: kernel/seccomp.c:seccomp_is_const_allow. Runs the program with number and architecture
// known; whatever looks at anything else is not constant.
bool SeccompFilter::constant_result(uint32_t number, uint32_t& result) const {
    uint32_t a = 0;
    for (size_t pc = 0;; pc++) {
        const sock_filter& i = program_[pc];
        switch (i.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                if (i.k == offsetof(seccomp_data, nr)) {
                    a = number;
                } else if (i.k == offsetof(seccomp_data, arch)) {
                    a = AUDIT_ARCH_X86_64;
                } else {
                    return false;
                }
                break;
            case BPF_RET | BPF_K:
                result = i.k;
                return true;
            case BPF_JMP | BPF_JA:
                pc += i.k;
                break;
            case BPF_JMP | BPF_JEQ | BPF_K:
            case BPF_JMP | BPF_JGE | BPF_K:
            case BPF_JMP | BPF_JGT | BPF_K:
            case BPF_JMP | BPF_JSET | BPF_K:
                pc += compare(i.code, a, i.k) ? i.jt : i.jf;
                break;
            case BPF_ALU | BPF_AND | BPF_K:
                a &= i.k;
                break;
            default:
                return false;
        }
    }
}

bool SeccompFilter::always_allows(uint32_t number) const {
    if (number >= kCached) {
        return false;
    }
    uint8_t cached = cache_[number].load(std::memory_order_relaxed);
    if (cached == kUnknown) [[unlikely]] {
        cached = kAllows;
        for (const SeccompFilter* f = this; f != nullptr; f = f->previous_.get()) {
            uint32_t result = 0;
            if (!f->constant_result(number, result) || result != SECCOMP_RET_ALLOW) {
                cached = kDepends;
                break;
            }
        }
        cache_[number].store(cached, std::memory_order_relaxed);
    }
    return cached == kAllows;
}

uint32_t SeccompFilter::verdict(const seccomp_data& data, bool* log) const {
    *log = false;
    if (always_allows(static_cast<uint32_t>(data.nr))) [[likely]] {
        return SECCOMP_RET_ALLOW;
    }
    uint32_t strictest = SECCOMP_RET_ALLOW;
    for (const SeccompFilter* f = this; f != nullptr; f = f->previous_.get()) {
        const uint32_t result = f->run(data);
        if (strictness(result) < strictness(strictest)) {
            strictest = result;
            *log = f->log_ == Log::kYes;
        }
    }
    return strictest;
}

}  // namespace moat::kernel
