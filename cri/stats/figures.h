#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cri/cni/netlink.h"
#include "cri/containers/container.h"
#include "cri/pods/pod.h"
#include "runtime/runtime.h"

namespace moat::cri {

/// What was measured of a container at one moment.
struct ContainerFigures {
    ContainerPtr container;
    ContainerRecord record;
    int64_t at_ns = 0;                    ///< CLOCK_REALTIME
    std::optional<runtime::Stats> stats;  ///< nothing: it has ended, or the runtime could not tell
    std::optional<uint64_t> nano_cores;
};

struct NetworkFigures {
    std::vector<LinkFigures> links;  ///< without loopback
    int default_link = 0;            ///< index of one of them; 0: none
};

struct PodFigures {
    PodPtr pod;
    PodRecord record;
    int64_t at_ns = 0;
    runtime::Stats stats;
    std::optional<uint64_t> nano_cores;
    std::optional<NetworkFigures> network;     ///< nothing for a pod in the node's network
    std::vector<ContainerFigures> containers;  ///< those that have not ended
};

/// Of the node's file system that holds what containers write to disk.
struct FilesystemFigures {
    std::string mountpoint;  ///< the id that ImageFsInfo gives to container file systems
    std::string device;      ///< "/dev/vda", or MAJOR:MINOR where it has no name
    uint64_t total_bytes = 0;
    uint64_t total_inodes = 0;
    uint64_t free_inodes = 0;
};

/// "/dev/NAME" for a block device of the node, else MAJOR:MINOR.
std::string device_name(uint32_t major, uint32_t minor);

}  // namespace moat::cri
