#pragma once

#include <cstddef>
#include <cstdint>

namespace moat::arch {

/// General registers in the order of a signal frame's mcontext (arch/x86/include/uapi/asm/
/// sigcontext.h), then the segment bases, which a frame does not hold.
struct Registers {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint64_t segments;  ///< cs, gs, fs, ss as 16 bits each
    uint64_t error, trap_number, old_mask, cr2;
    uint64_t fs_base, gs_base;
};

/// The part of Registers that a signal frame holds.
inline constexpr size_t kFrameRegisterCount = 23;
static_assert(offsetof(Registers, fs_base) == kFrameRegisterCount * 8);

/// User code and stack segments of 64-bit code: cs 0x33, ss 0x2b.
inline constexpr uint64_t kUserSegments = 0x002b'0000'0000'0033;

/// Kernel's struct ucontext as it lies in a signal frame (64-bit, without the FPU part).
struct FrameContext {
    uint64_t flags;
    uint64_t link;
    uint64_t stack_base;
    int32_t stack_flags;
    int32_t padding;
    uint64_t stack_size;
    uint64_t registers[kFrameRegisterCount];
    uint64_t fpstate;
    uint64_t reserved[8];
    uint64_t mask;
};
static_assert(sizeof(FrameContext) == 304);

}  // namespace moat::arch
