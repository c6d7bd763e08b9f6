#pragma once

#include <compare>
#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class Task;

/// What a futex word is: an address of an address space, or an offset of a shared object.
struct FutexKey {
    uint64_t object = 0;  ///< the AddressSpace, or the object's identity from the host
    uint64_t offset = 0;
    bool shared = false;
    auto operator<=>(const FutexKey&) const = default;
};

/// EINVAL: not aligned.
Result<FutexKey> futex_key_of(Task& task, GuestAddr address, bool is_private);

}  // namespace moat::kernel
