#pragma once

#include "kernel/base/ref_ptr.h"

namespace moat::kernel {

class Dentry;
class Mount;

/// A place in a mount namespace: a dentry, seen through a mount (Linux: struct path). Defined out
/// of line so that holders need not know dentries.
class Path {
  public:
    Path();
    Path(RefPtr<Mount> mount, RefPtr<Dentry> dentry);
    Path(const Path&);
    Path(Path&&) noexcept;
    Path& operator=(const Path&);
    Path& operator=(Path&&) noexcept;
    ~Path();

    bool is_null() const { return !dentry_; }
    explicit operator bool() const { return !is_null(); }
    Mount* mount() const { return mount_.get(); }
    Dentry* dentry() const { return dentry_.get(); }
    const RefPtr<Mount>& mount_ref() const { return mount_; }
    const RefPtr<Dentry>& dentry_ref() const { return dentry_; }
    bool operator==(const Path& other) const {
        return mount_.get() == other.mount_.get() && dentry_.get() == other.dentry_.get();
    }

  private:
    RefPtr<Mount> mount_;
    RefPtr<Dentry> dentry_;
};

}  // namespace moat::kernel
