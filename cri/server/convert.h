#pragma once

#include <string>

#include "api.pb.h"
#include "cri/containers/container.h"
#include "cri/images/image_store.h"
#include "cri/pods/pod.h"

// From our records to the CRI's messages, and the CRI's filters on them.

namespace moat::cri {

api::PodSandboxState pod_state(const PodRecord& record);
api::ContainerState container_state(const ContainerRecord& record);

void fill(api::PodSandbox& out, const PodRecord& record, const api::PodSandboxConfig& config);
void fill(api::PodSandboxStatus& out, const PodRecord& record, const api::PodSandboxConfig& config);
void fill(api::Container& out, const ContainerRecord& record, const api::ContainerConfig& config);
void fill(api::ContainerStatus& out, const ContainerRecord& record,
          const api::ContainerConfig& config);
void fill(api::Image& out, const ImageRecord& image);

/// All of the filter's fields that are set must fit; an id may be shortened.
bool matches(const api::PodSandboxFilter& filter, const api::PodSandbox& pod);
bool matches(const api::ContainerFilter& filter, const api::Container& container);
bool matches(const api::ContainerStatsFilter& filter, const Container& container);
bool matches(const api::PodSandboxStatsFilter& filter, const Pod& pod);

/// Linux's number to the CRI's word.
api::Signal to_signal(int number);

}  // namespace moat::cri
