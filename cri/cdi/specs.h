#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// One device of the Container Device Interface (CDI,
/// github.com/cncf-tags/container-device-interface), found by its qualified name.
struct CdiDevice {
    std::string name;  ///< "vendor.com/class=device"
    std::string file;  ///< the specification that has it
    /// containerEdits of the whole specification: of one object for all devices of one file, as it
    /// is applied once however many of them are asked for.
    std::shared_ptr<const nlohmann::json> common;
    nlohmann::json edits;  ///< containerEdits of this device
};

/// The devices of these names, in their order, each once. The *.json and *.yaml of `directories`
/// are read anew at each call; a later directory's device replaces an earlier one's. EINVAL names
/// the device that is not there, is there twice in one directory, or whose name is none, and the
/// files that could not be read.
Result<std::vector<CdiDevice>> find_cdi_devices(const std::vector<std::string>& directories,
                                                const std::vector<std::string>& names,
                                                const std::string& field);

/// The names in the value of an annotation "cdi.k8s.io/...": with commas between them.
std::vector<std::string> split_cdi_names(const std::string& value);

}  // namespace moat::cri
