#pragma once

#include <string>

namespace moat::cri {

/// Room on the file system that is kept for taking things down: on a full one, ending a pod or
/// removing an image has to be written down before it gives anything back. A file of kReserveBytes;
/// given up when a write that ends something finds no room, taken again when there is plenty. Only
/// one thread at a time calls it.
class Reserve {
  public:
    static constexpr long kReserveBytes = 8 << 20;

    explicit Reserve(std::string path) : path_(std::move(path)) {}

    /// Keeps the room if it does not and the file system has several times as much.
    void take();
    /// Whether it was given up and there has been no room to take it again: nothing new should be
    /// begun. A file system that is too small for one has never lost it.
    bool lost();
    /// Gives it up. False: there was none.
    bool give_up();

  private:
    std::string path_;
    bool held_ = false;
    bool lost_ = false;
};

}  // namespace moat::cri
