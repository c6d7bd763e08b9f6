#pragma once

#include "cri/base/error.h"

namespace runtime::v1 {
class ContainerConfig;
class LinuxContainerResources;
}  // namespace runtime::v1

namespace moat::cri {

namespace api = ::runtime::v1;
struct ContainerRecord;

/// EINVAL, by the field's name, for a value that no kernel takes. What is 0 or empty is not said.
Status check_resources(const api::LinuxContainerResources& resources);

/// `changes` over `resources`: what it does not say stays.
void merge_resources(api::LinuxContainerResources& resources,
                     const api::LinuxContainerResources& changes);

/// A request that takes `changes` back from a container that had `before`: what was not limited
/// then is not limited afterwards.
api::LinuxContainerResources revert_of(const api::LinuxContainerResources& before,
                                       const api::LinuxContainerResources& changes);

/// A pod's limits with what its sandbox needs on top of them.
api::LinuxContainerResources with_overhead(const api::LinuxContainerResources& resources,
                                           const api::LinuxContainerResources& overhead);

/// The container's as last updated, else those it was created with.
api::LinuxContainerResources resources_of(const ContainerRecord& record,
                                          const api::ContainerConfig& config);

}  // namespace moat::cri
