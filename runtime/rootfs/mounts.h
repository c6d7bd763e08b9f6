#pragma once

// From a bundle's root and mounts to what the gofer serves and what the sentry mounts. All deciding
// is here: the two only carry it out.

#include <map>
#include <string>
#include <vector>

#include "fsgofer/protocol/plan.h"
#include "kernel/control/plan.h"
#include "runtime/error.h"
#include "runtime/spec/spec.h"

namespace moat::runtime {

struct FilePlan {
    gofer::GoferPlan gofer;  ///< mount 0 is the container's root
    control::RootPlan root;
    std::vector<control::MountPlan> mounts;
};

/// Resolves `spec`'s root and mounts against `bundle` (absolute) and the mount hints among
/// `annotations` ("dev.moat.spec.mount.NAME.{source,type,share}", or gVisor's
/// "dev.gvisor.spec..."): a volume whose hint says type tmpfs and share pod becomes a tmpfs of that
/// name inside the sandbox, shared by the pod's containers; with share container a tmpfs of its
/// own.
///
/// Other annotations: "dev.moat.overlay": "none" lets a read-write root write to the host's files
/// ("root", the default, keeps writes in the sandbox); "dev.moat.host-uds": "connect" lets the
/// guest connect to unix sockets on bind mounts.
///
/// Errors name the mount: "mount /data: source /x: No such file or directory".
Result<FilePlan> plan_files(const Spec& spec, const std::string& id, const std::string& bundle,
                            const std::map<std::string, std::string>& annotations);

/// The gofer's plan as its JSON (fsgofer/protocol/plan.h).
std::string gofer_plan_json(const gofer::GoferPlan& plan);

}  // namespace moat::runtime
