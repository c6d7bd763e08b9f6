// Signal frames as the guest sees them: Linux's struct rt_sigframe
// (arch/x86/include/asm/sigframe.h), above it the FPU state as the host's frame holds it.

#include <cpuid.h>
#include <string.h>

#include <vector>

#include "kernel/mm/address_space.h"
#include "kernel/platform/shared_area.h"
#include "kernel/task/task.h"
#include "kernel/task/task_signals.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kSaOnStack = 0x08000000;
constexpr uint64_t kRedZone = 128;
constexpr uint32_t kXstateMagic = 0x46505853;  // FP_XSTATE_MAGIC1
constexpr size_t kLegacySize = 512;
constexpr size_t kSoftwareReserved = 464;  // struct _fpx_sw_bytes in the legacy area
/// Direction, trap and resume flags: cleared for a handler.
constexpr uint64_t kHandlerClearedFlags = 0x10500;

struct Frame {
    uint64_t return_address;
    arch::FrameContext context;
    SignalInfo info;
};
static_assert(sizeof(Frame) == 440);

/// The FPU state of the host frame, or nothing when the guest starts with a clean FPU. The frame
/// lies in guest memory: sizes are checked against the thread's signal stack.
std::vector<char> read_fpu_state(Task& task, uint64_t fpstate, int slot) {
    std::vector<char> state;
    const uint64_t bottom = platform::signal_stack_base(slot);
    const uint64_t top = platform::signal_stack_top(slot);
    if (fpstate < bottom || fpstate + kLegacySize > top) {
        return state;
    }
    state.resize(top - fpstate);
    if (!task.copy_in_bytes(state.data(), GuestAddr{fpstate}, state.size()).ok()) {
        state.clear();
        return state;
    }
    uint32_t software[2];
    memcpy(software, state.data() + kSoftwareReserved, sizeof software);
    const size_t size =
        software[0] == kXstateMagic && software[1] <= state.size() ? software[1] : kLegacySize;
    state.resize(std::max(size, kLegacySize));
    return state;
}

}  // namespace

Status push_signal_frame(Task& task, const SignalInfo& info, const SignalAction& action,
                         uint64_t mask_to_restore) {
    arch::Registers& r = task.registers_;
    const AlternateStack alternate = task.alternate_stack_;
    const bool usable = (alternate.flags & SS_DISABLE) == 0 && alternate.size != 0;
    // One that disarms itself can be reused at once: nobody is "on" it (Linux: on_sig_stack()).
    const bool on_it = usable && (alternate.flags & kAutoDisarm) == 0 && r.rsp > alternate.base &&
                       r.rsp - alternate.base <= alternate.size;
    uint64_t sp = r.rsp - kRedZone;
    if ((action.flags & kSaOnStack) != 0 && usable && !on_it) {
        sp = alternate.base + alternate.size;
    }
    if (task.fpu_copy_.size != 0) {
        // A new thread's very first frame, before it ran: what it would inherit is not copied yet.
        task.fpu_copy_ = {};
        task.fpstate_ = 0;
    }
    const std::vector<char> fpu = read_fpu_state(task, task.fpstate_, task.thread_->slot_index());
    const uint64_t fpu_at = (sp - fpu.size()) & ~uint64_t{63};
    const uint64_t frame_at = ((fpu_at - sizeof(Frame)) & ~uint64_t{15}) - 8;

    std::vector<char> image(fpu_at + fpu.size() - frame_at);
    Frame frame{};
    frame.return_address = action.restorer;
    frame.context.flags = fpu.empty() ? 6 : 7;
    frame.context.stack_base = alternate.base;
    frame.context.stack_flags = static_cast<int32_t>((!usable ? SS_DISABLE
                                                      : on_it ? SS_ONSTACK
                                                              : 0) |
                                                     (alternate.flags & kAutoDisarm));
    frame.context.stack_size = alternate.size;
    memcpy(frame.context.registers, &r, sizeof frame.context.registers);
    frame.context.fpstate = fpu.empty() ? 0 : fpu_at;
    frame.context.mask = mask_to_restore;
    frame.info = info;
    memcpy(image.data(), &frame, sizeof frame);
    memcpy(image.data() + (fpu_at - frame_at), fpu.data(), fpu.size());
    TRY(task.copy_out_bytes(GuestAddr{frame_at}, image.data(), image.size()));
    if (usable && (alternate.flags & kAutoDisarm) != 0) {
        task.alternate_stack_ = AlternateStack();
    }

    r.rip = action.handler;
    r.rsp = frame_at;
    r.rdi = static_cast<uint64_t>(info.signo);
    r.rsi = frame_at + offsetof(Frame, info);
    r.rdx = frame_at + offsetof(Frame, context);
    r.rax = 0;
    r.eflags &= ~kHandlerClearedFlags;
    r.segments = arch::kUserSegments;
    task.fpstate_ = 0;  // handlers start with a clean FPU
    return {};
}

Status pop_signal_frame(Task& task) {
    arch::Registers& r = task.registers_;
    // The restorer was entered by the handler's `ret`: rsp is just above the return address.
    const auto context = TRY(task.copy_in(UserPtr<const arch::FrameContext>(r.rsp)));
    memcpy(&r, context.registers, sizeof context.registers);
    r.segments = arch::kUserSegments;

    const int slot = task.thread_->slot_index();
    uint64_t restored = 0;
    if (context.fpstate != 0) {
        std::vector<char> state(kLegacySize);
        TRY(task.copy_in_bytes(state.data(), GuestAddr{context.fpstate}, kLegacySize));
        uint32_t software[2];
        memcpy(software, state.data() + kSoftwareReserved, sizeof software);
        size_t size = kLegacySize;
        if (software[0] == kXstateMagic && software[1] >= kLegacySize &&
            software[1] <= MOAT_FIRST_FRAME - 0x1000) {
            size = software[1];
            state.resize(size);
            TRY(task.copy_in_bytes(state.data(), GuestAddr{context.fpstate}, size));
        }
        // Into the thread's signal stack, above any frame; the host validates it on the way out.
        restored = (platform::signal_stack_top(slot) - size) & ~uint64_t{63};
        if (task.mm().write_signal_stack(restored, state.data(), size) != size) {
            return Errno(EFAULT);
        }
    }
    task.fpstate_ = restored;
    AlternateStack stack = task.alternate_stack_;
    stack.base = context.stack_base;
    stack.size = context.stack_size;
    stack.flags = static_cast<uint32_t>(context.stack_flags) & (SS_DISABLE | kAutoDisarm);
    task.alternate_stack_ = stack;
    task.change_signal_mask(context.mask & ~kUnblockable);
    return {};
}

}  // namespace moat::kernel
