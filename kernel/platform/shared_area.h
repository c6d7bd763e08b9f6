#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/arch/x86_64/registers.h"
#include "kernel/platform/layout.h"

namespace moat::platform {

/// One call that the stub is told to make.
struct Order {
    uint64_t number = 0;
    uint64_t arguments[6] = {};
    uint64_t padding = 0;
};
static_assert(sizeof(Order) == 64);

/// The sentry's view of an area's header. Every field may be changed by the guest at any time.
struct AreaHeader {
    uint32_t sequence;
    uint32_t kind;
    uint32_t slot;
    uint32_t padding;
    uint32_t done;
    uint32_t padding2;
    int64_t result;
    int64_t child_fd;
};
static_assert(offsetof(AreaHeader, sequence) == MOAT_H_SEQ);
static_assert(offsetof(AreaHeader, kind) == MOAT_H_KIND);
static_assert(offsetof(AreaHeader, slot) == MOAT_H_SLOT);
static_assert(offsetof(AreaHeader, done) == MOAT_H_DONE);
static_assert(offsetof(AreaHeader, result) == MOAT_H_RESULT);
static_assert(offsetof(AreaHeader, child_fd) == MOAT_H_CHILD_FD);

/// One host thread's slot. Hostile as the header: copied once, then checked.
struct Slot {
    arch::Registers registers;
    uint64_t fpstate;
    uint64_t frame;
    uint8_t padding[MOAT_S_STACK - 216];
    uint64_t stack_base;
    int32_t stack_flags;
    int32_t stack_padding;
    uint64_t stack_size;
    uint8_t padding2[MOAT_S_COUNT - MOAT_S_STACK - 24];
    uint32_t order_count;
    uint8_t padding3[MOAT_S_ORDERS - MOAT_S_COUNT - 4];
    Order orders[MOAT_ORDER_COUNT];
    uint8_t padding4[MOAT_S_MARSHAL - MOAT_S_ORDERS - MOAT_ORDER_COUNT * 64];
    uint8_t marshal[(1 << MOAT_SLOT_SHIFT) - MOAT_S_MARSHAL];
};
static_assert(sizeof(Slot) == 1 << MOAT_SLOT_SHIFT);
static_assert(offsetof(Slot, fpstate) == MOAT_S_FPSTATE);
static_assert(offsetof(Slot, frame) == MOAT_S_FRAME);
static_assert(offsetof(Slot, stack_base) == MOAT_S_STACK);
static_assert(offsetof(Slot, order_count) == MOAT_S_COUNT);
static_assert(offsetof(Slot, orders) == MOAT_S_ORDERS);
static_assert(offsetof(Slot, marshal) == MOAT_S_MARSHAL);

constexpr uint64_t slot_address(int slot) {
    return MOAT_AREA_BASE + MOAT_HEADER_SIZE + (static_cast<uint64_t>(slot) << MOAT_SLOT_SHIFT);
}
constexpr uint64_t signal_stack_base(int slot) {
    return MOAT_ALT_BASE + (static_cast<uint64_t>(slot) << MOAT_ALT_SHIFT);
}
constexpr uint64_t signal_stack_top(int slot) { return signal_stack_base(slot + 1); }

}  // namespace moat::platform
