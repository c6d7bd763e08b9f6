#pragma once

// Builds a container's mount tree from its plan.

#include <map>
#include <memory>
#include <string>

#include "kernel/base/error.h"
#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/control/plan.h"
#include "kernel/fs/gofer/client.h"
#include "kernel/fs/mount.h"

namespace moat::kernel {

class Container;
class TmpfsFileSystem;

/// The tmpfs file systems that containers of the pod share (mounts of type "shared"), by name. One
/// for the sandbox.
class SharedVolumes {
  public:
    /// The volume of that name; made with `options` by the first who asks.
    Result<RefPtr<FileSystem>> get(const std::string& name,
                                   const std::vector<std::string>& options);

  private:
    Mutex<LockRank::kContainer> mu_;
    std::map<std::string, RefPtr<FileSystem>> volumes_ GUARDED_BY(mu_);
};

/// The tree of `plan`: the root (an overlay over the gofer's mount 0, or that mount itself), its
/// mounts in their order with missing mount points made, masked and read-only paths. `container` is
/// handed to the file systems that are made; it may be null in tests. File systems other than
/// gofer, overlay and shared come from the registry. Errors name the mount.
Result<RefPtr<MountNamespace>, Error> build_mounts(const control::ContainerPlan& plan,
                                                   std::shared_ptr<gofer::Client> client,
                                                   SharedVolumes& shared, Container* container);

/// Makes what the VFS itself brings known to the registry: tmpfs. At boot.
void register_vfs();

}  // namespace moat::kernel
