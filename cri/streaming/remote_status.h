#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moat::cri::streaming {

/// How an exec or attach has ended, as its error stream tells: from v4 on a metav1.Status in JSON,
/// before that a text, and nothing for a success.
struct RemoteStatus {
    enum class Kind { kSuccess, kExitCode, kError };
    Kind kind = Kind::kSuccess;
    int32_t exit_code = 0;
    std::string message;  ///< kError: what failed

    static RemoteStatus exited(int32_t code, const std::vector<std::string>& command);
    static RemoteStatus failed(std::string what);
    /// "" for nothing to say.
    std::string text(int protocol_version) const;
};

/// The resize stream: JSON objects {"Width":80,"Height":24}, one behind the other.
class SizeParser {
  public:
    struct Size {
        uint16_t rows = 0;
        uint16_t columns = 0;
    };
    /// The sizes that are complete now, in their order. What is no size ends it: from then on none.
    std::vector<Size> feed(std::string_view bytes);

  private:
    std::string begun_;
    bool broken_ = false;
};

}  // namespace moat::cri::streaming
