#include "kernel/task/credentials.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/stat.h>

#include <algorithm>

namespace moat::kernel {

RefPtr<Credentials> Credentials::clone() const {
    auto copy = make_ref<Credentials>();
    copy->uid = uid, copy->euid = euid, copy->suid = suid, copy->fsuid = fsuid;
    copy->gid = gid, copy->egid = egid, copy->sgid = sgid, copy->fsgid = fsgid;
    copy->groups = groups;
    copy->permitted = permitted;
    copy->effective = effective;
    copy->inheritable = inheritable;
    copy->bounding = bounding;
    copy->ambient = ambient;
    copy->securebits = securebits;
    copy->no_new_privs = no_new_privs;
    copy->uid_count = uid_count, copy->gid_count = gid_count;
    return copy;
}

bool Credentials::in_group(uint32_t group) const {
    return fsgid == group || std::binary_search(groups.begin(), groups.end(), group);
}

bool Credentials::operator==(const Credentials& o) const {
    return uid == o.uid && euid == o.euid && suid == o.suid && fsuid == o.fsuid && gid == o.gid &&
           egid == o.egid && sgid == o.sgid && fsgid == o.fsgid && groups == o.groups &&
           permitted == o.permitted && effective == o.effective && inheritable == o.inheritable &&
           bounding == o.bounding && ambient == o.ambient && securebits == o.securebits &&
           no_new_privs == o.no_new_privs && uid_count == o.uid_count && gid_count == o.gid_count;
}

/// Linux: security/commoncap.c:cap_bprm_creds_from_file, without file capabilities.
RefPtr<Credentials> Credentials::for_exec(uint32_t file_mode, uint32_t file_uid, uint32_t file_gid,
                                          SetId set_id) const {
    auto next = clone();
    if (set_id == SetId::kHonour && !no_new_privs) {
        if ((file_mode & S_ISUID) != 0) {
            next->euid = file_uid;
        }
        // Without group execution the bit once meant mandatory locking (inode(7)).
        if ((file_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) {
            next->egid = file_gid;
        }
    }
    const bool changes_identity = next->euid != euid || next->egid != egid;
    next->suid = next->fsuid = next->euid;
    next->sgid = next->fsgid = next->egid;

    if (changes_identity) {
        next->ambient = 0;
    }
    uint64_t from_file = 0;
    bool file_effective = false;
    if ((securebits & SECBIT_NOROOT) == 0 && (next->uid == 0 || next->euid == 0)) {
        from_file = bounding | inheritable;
        file_effective = next->euid == 0;
    }
    next->permitted = from_file | next->ambient;
    next->effective = file_effective ? next->permitted : next->ambient;
    next->securebits &= ~static_cast<uint32_t>(SECBIT_KEEP_CAPS);
    return next;
}

}  // namespace moat::kernel
