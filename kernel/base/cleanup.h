#pragma once

#include <utility>

namespace moat {

/// Undoes half-done work at the end of the scope unless released.
template <typename F>
class [[nodiscard]] Cleanup {
  public:
    explicit Cleanup(F undo) : undo_(std::move(undo)) {}
    Cleanup(const Cleanup&) = delete;
    Cleanup& operator=(const Cleanup&) = delete;
    ~Cleanup() {
        if (armed_) {
            undo_();
        }
    }
    void release() { armed_ = false; }

  private:
    F undo_;
    bool armed_ = true;
};

}  // namespace moat
