#pragma once

#include "api.pb.h"
#include "cri/stats/figures.h"

// Figures as the CRI's messages.

namespace moat::cri {

namespace api = ::runtime::v1;

void fill(api::ContainerStats& out, const ContainerFigures& figures, const FilesystemFigures& fs);
void fill(api::PodSandboxStats& out, const PodFigures& figures, const FilesystemFigures& fs);

/// Every metric that fill() below may give a value to, in a fixed order.
void fill(api::ListMetricDescriptorsResponse& out);
/// Values under the names and with the labels that cAdvisor gives them (KEP-2371). The CRI has
/// whole numbers only, so seconds are whole seconds.
void fill(api::PodSandboxMetrics& out, const PodFigures& figures, const FilesystemFigures& fs);

}  // namespace moat::cri
