#pragma once

#include <cstdint>

namespace moat::cri {

/// What a pull may take. Registries and images are strangers'.
struct PullLimits {
    int64_t stall_seconds = 60;    ///< without a byte for so long, a server is taken for dead
    int64_t retry_base_ms = 500;   ///< the first pause before a request is made again
    int64_t longest_pause_s = 60;  ///< a Retry-After of more is a refusal
    uint64_t partial_bytes = uint64_t{8} << 30;  ///< of broken downloads that are kept
    uint64_t layer_bytes = uint64_t{100} << 30;  ///< of one layer's files, unpacked
    uint64_t layer_members = 2'000'000;          ///< of one layer's tar
};

}  // namespace moat::cri
