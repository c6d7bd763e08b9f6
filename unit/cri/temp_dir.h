#pragma once

#include <stdlib.h>

#include <string>

#include "cri/base/files.h"

namespace moat::cri {

/// A directory that goes with the object.
class TempDir {
  public:
    TempDir() { path_ = mkdtemp(path_.data()); }
    ~TempDir() { (void)remove_tree(path_); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

  private:
    std::string path_ = "/tmp/moat-unit-cri-XXXXXX";
};

inline std::string message_of(const Status& status) {
    return status.ok() ? "" : status.error().message();
}
template <typename T>
std::string message_of(const Result<T>& result) {
    return result.ok() ? "" : result.error().message();
}
inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace moat::cri
