#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"

namespace moat::kernel {

/// A guest's seccomp filter: a classic BPF program over struct seccomp_data, and those installed
/// before it (seccomp(2), Linux: kernel/seccomp.c). Immutable and shared: fork, clone and exec pass
/// it on.
class SeccompFilter final : public RefCounted {
  public:
    enum class Log : bool { kNo, kYes };

    /// EINVAL for a program that Linux would refuse: empty or longer than BPF_MAXINSNS, an
    /// instruction that seccomp does not know, a jump or a load out of bounds, scratch memory read
    /// before it was written, no return at the end. ENOMEM: too many instructions with those before
    /// it.
    static Result<RefPtr<SeccompFilter>> create(std::span<const sock_filter> program,
                                                RefPtr<const SeccompFilter> previous, Log log);

    /// What all filters say of a call: SECCOMP_RET_* with its data. The strictest action wins,
    /// among equals the newest filter. `*log` is whether the filter that decided wants its actions
    /// logged.
    uint32_t verdict(const seccomp_data& data, bool* log) const;

    /// Whether all filters allow the call whatever its arguments, and no action is to be logged.
    bool always_allows(uint32_t number) const;

    const SeccompFilter* previous() const { return previous_.get(); }
    /// How many filters: itself and those before it (Seccomp_filters of proc(5)).
    uint32_t count() const { return count_; }
    /// Whether this filter is `other` or was installed on top of it; null is below everything.
    bool is_above(const SeccompFilter* other) const;

    ~SeccompFilter() override;

  private:
    SeccompFilter(std::span<const sock_filter> program, RefPtr<const SeccompFilter> previous,
                  Log log);
    uint32_t run(const seccomp_data& data) const;
    /// The program's result for each call of this number, whatever its arguments; false: it
    /// depends.
    bool constant_result(uint32_t number, uint32_t& result) const;

    const std::vector<sock_filter> program_;
    RefPtr<const SeccompFilter> previous_;  // immutable until the end
    const Log log_;
    const uint32_t count_;
    const uint32_t path_instructions_;  // with Linux's penalty for each filter

    // As Linux's action cache: most profiles decide by the number alone. One byte a call, filled
    // when the call is first made; relaxed, since everybody would store the same.
    static constexpr size_t kCached = 512;
    static constexpr uint8_t kUnknown = 0, kDepends = 1, kAllows = 2;
    mutable std::array<std::atomic<uint8_t>, kCached> cache_{};
};

}  // namespace moat::kernel
