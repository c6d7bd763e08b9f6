#pragma once

namespace moat::cri {

struct Settings;
class PodManager;
class ContainerManager;
class Handlers;

/// At the start, behind recovery: removes what bears our marks and belongs to no row: sandboxes
/// that moatd made (their annotations say so), network namespaces, files of pods, bundles of
/// containers, each of which has an id of 64 hex digits for its name. A lost or restored database
/// is how they come about. One log line each; what cannot be removed is logged and stays.
void sweep_strays(const Settings& settings, PodManager& pods, ContainerManager& containers,
                  const Handlers& handlers);

}  // namespace moat::cri
