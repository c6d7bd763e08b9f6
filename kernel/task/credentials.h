#pragma once

#include <cstdint>
#include <vector>

#include "kernel/base/ref_ptr.h"

namespace moat::kernel {

/// Who a task acts as (credentials(7), capabilities(7)). Immutable once shared: a change makes a
/// copy and installs it in the task, as Linux's prepare_creds/commit_creds do.
class Credentials : public RefCounted {
  public:
    uint32_t uid = 0, euid = 0, suid = 0, fsuid = 0;
    uint32_t gid = 0, egid = 0, sgid = 0, fsgid = 0;
    std::vector<uint32_t> groups;  ///< supplementary, sorted
    uint64_t permitted = 0, effective = 0, inheritable = 0, bounding = 0, ambient = 0;
    uint32_t securebits = 0;
    bool no_new_privs = false;
    /// The ids that the user namespace maps are those below.
    uint32_t uid_count = UINT32_MAX, gid_count = UINT32_MAX;

    Credentials() = default;
    /// A private copy to be changed before it is shared.
    RefPtr<Credentials> clone() const;
    bool has_capability(int capability) const { return (effective >> capability & 1) != 0; }
    /// Whether the user namespace has the id (Linux: uid_valid(make_kuid())).
    bool has_uid(uint32_t id) const { return id < uid_count; }
    bool has_gid(uint32_t id) const { return id < gid_count; }
    /// Whether `group` is the fsgid or a supplementary group.
    bool in_group(uint32_t group) const;
    /// What execve(2) of a file of this mode and owner makes of them. `set_id` kIgnore: the file
    /// lies on a nosuid mount, or is being traced.
    enum class SetId : bool { kIgnore, kHonour };
    RefPtr<Credentials> for_exec(uint32_t file_mode, uint32_t file_uid, uint32_t file_gid,
                                 SetId set_id) const;
    bool operator==(const Credentials& other) const;
};

using CredentialsRef = RefPtr<const Credentials>;

}  // namespace moat::kernel
