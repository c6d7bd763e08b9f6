#pragma once

// What the runtime tells a gofer to serve: JSON, written by runtime/ into a descriptor (a memfd, a
// file or a pipe) whose number follows --plan-fd, read to its end by the gofer. Messages only.
//
//   moat-gofer --socket-fd N --plan-fd M
//
//   {
//     "id": "web-1",
//     "mounts": [
//       {"source": "/var/lib/moat/layers/1/rootfs", "destination": "/", "read_only": true},
//       {"source": "/var/lib/kubelet/pods/.../etc-hosts", "destination": "/etc/hosts",
//        "options": ["nosuid", "nodev", "noexec"]},
//       {"source": "/run/app.sock", "destination": "/run/app.sock", "options": ["connect"]}
//     ]
//   }
//
// Mount 0 is the container's root; the index of a mount here is MountPlan::gofer_mount in the
// sentry's plan. `source` is an absolute host path, resolved by the gofer in its mount namespace
// (symlinks are followed: the runtime has vouched for it); it may be a directory or a file of any
// kind. `destination` is for messages and the sentry's own use, the gofer mounts nothing there.
// Members other than these are refused, so that a misspelt one is noticed.
//
// options:
//   nosuid nodev noexec noatime   the host mount's own flags (nosuid and nodev are always set,
//   unless
//                                 "dev" is given)
//   dev                           device nodes may be opened (with "devices")
//   connect                       kConnect to unix sockets on the mount
//   devices, fifos                kOpen may donate those
//   ro-top                        read_only for the source itself and not for what is mounted below
//   it slave, rslave                 mounts made on the host below the source later on appear here
//   too ro, rw, bind, rbind, private, rprivate, suid, exec
//                                 accepted, as OCI configurations have them; "ro" is read_only,
//                                 suid and exec change nothing
// Shared propagation is not to be had: a guest has no way to mount on the host.
//
// The gofer is started as root in mount, ipc, uts, net and pid namespaces of its own, with N being
// one end of a SOCK_SEQPACKET socket pair whose other end goes to the sentry. It answers the
// sentry's first message (kHello) when it is confined and ready, or with an error in words. It
// exits with 0 when the sentry has closed all channels, with 1 on an error before that.

#include <cstdint>
#include <string>
#include <vector>

namespace moat::gofer {

struct GoferMount {
    std::string source;
    std::string destination;
    bool read_only = false;
    std::vector<std::string> options;
};

struct GoferPlan {
    std::string id;
    std::vector<GoferMount> mounts;
};

inline constexpr size_t kMaxMounts = 4096;
inline constexpr size_t kMaxPlanBytes = 4 << 20;

}  // namespace moat::gofer
