#pragma once

#include <grpcpp/server_context.h>

#include <vector>

#include "api.pb.h"
#include "cri/server/errors.h"
#include "cri/server/response_writer.h"

namespace moat::cri {

namespace api = ::runtime::v1;
struct Node;

/// runtime.v1.RuntimeService, behind checked_services.h: each method validates, makes one call,
/// converts. What is not built yet says so by its name (runtime_service_unbuilt.cc).
class RuntimeService {
  public:
    explicit RuntimeService(Node& node) : node_(node) {}

#define MOAT_RPC(Name)                                                                     \
    ::grpc::Status Name(::grpc::ServerContext* context, const api::Name##Request* request, \
                        api::Name##Response* response)
    // runtime_service_node.cc
    MOAT_RPC(Version);
    MOAT_RPC(Status);
    MOAT_RPC(RuntimeConfig);
    MOAT_RPC(UpdateRuntimeConfig);
    // runtime_service_pods.cc
    MOAT_RPC(RunPodSandbox);
    MOAT_RPC(StopPodSandbox);
    MOAT_RPC(RemovePodSandbox);
    MOAT_RPC(PodSandboxStatus);
    MOAT_RPC(ListPodSandbox);
    MOAT_RPC(UpdatePodSandboxResources);
    // runtime_service_containers.cc
    MOAT_RPC(CreateContainer);
    MOAT_RPC(StartContainer);
    MOAT_RPC(StopContainer);
    MOAT_RPC(RemoveContainer);
    MOAT_RPC(ListContainers);
    MOAT_RPC(ContainerStatus);
    MOAT_RPC(ExecSync);
    MOAT_RPC(ReopenContainerLog);
    MOAT_RPC(UpdateContainerResources);
    // runtime_service_stats.cc
    MOAT_RPC(ContainerStats);
    MOAT_RPC(ListContainerStats);
    MOAT_RPC(PodSandboxStats);
    MOAT_RPC(ListPodSandboxStats);
    MOAT_RPC(ListMetricDescriptors);
    MOAT_RPC(ListPodSandboxMetrics);
    // runtime_service_streaming.cc
    MOAT_RPC(Exec);
    MOAT_RPC(Attach);
    MOAT_RPC(PortForward);
    // runtime_service_unbuilt.cc
    MOAT_RPC(CheckpointContainer);
    MOAT_RPC(CheckpointPod);
    MOAT_RPC(RestorePod);
#undef MOAT_RPC
#define MOAT_STREAM(Name, Request, Response)                                         \
    ::grpc::Status Name(::grpc::ServerContext* context, const api::Request* request, \
                        ResponseWriter<api::Response>* writer)
    // runtime_service_streams.cc
    MOAT_STREAM(StreamPodSandboxes, StreamPodSandboxesRequest, StreamPodSandboxesResponse);
    MOAT_STREAM(StreamContainers, StreamContainersRequest, StreamContainersResponse);
    MOAT_STREAM(StreamContainerStats, StreamContainerStatsRequest, StreamContainerStatsResponse);
    MOAT_STREAM(StreamPodSandboxStats, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse);
    MOAT_STREAM(StreamPodSandboxMetrics, StreamPodSandboxMetricsRequest,
                StreamPodSandboxMetricsResponse);
    MOAT_STREAM(GetContainerEvents, GetEventsRequest, ContainerEventResponse);
#undef MOAT_STREAM

  private:
    // What List* and Stream* have in common.
    std::vector<api::PodSandbox> pods(const api::PodSandboxFilter& filter);
    std::vector<api::Container> containers(const api::ContainerFilter& filter);
    std::vector<api::ContainerStats> container_stats(const api::ContainerStatsFilter& filter);
    std::vector<api::PodSandboxStats> pod_stats(const api::PodSandboxStatsFilter& filter);
    std::vector<api::PodSandboxMetrics> pod_metrics();

    Node& node_;
};

}  // namespace moat::cri
