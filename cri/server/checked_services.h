#pragma once

#include "cri/server/image_service.h"
#include "cri/server/request_check.h"
#include "cri/server/runtime_service.h"

// Both services behind check_request(): what clients reach. A method that is missing here is not
// checked, which e2e/cri's walk over the CRI's own description notices.

namespace moat::cri {

#define MOAT_RPC(Name)                                                                     \
    ::grpc::Status Name(::grpc::ServerContext* context, const api::Name##Request* request, \
                        api::Name##Response* response) {                                   \
        const auto checked = check_request(*request);                                      \
        return checked.ok() ? Base::Name(context, request, response) : to_grpc(checked);   \
    }
#define MOAT_STREAM(Name, Request, Response)                                           \
    ::grpc::Status Name(::grpc::ServerContext* context, const api::Request* request,   \
                        ResponseWriter<api::Response>* writer) {                       \
        const auto checked = check_request(*request);                                  \
        return checked.ok() ? Base::Name(context, request, writer) : to_grpc(checked); \
    }

/// The unbuilt methods are not among them: they answer UNIMPLEMENTED to whatever is asked.
class CheckedRuntimeService final : public RuntimeService {
    using Base = RuntimeService;

  public:
    using RuntimeService::RuntimeService;
    MOAT_RPC(Version)
    MOAT_RPC(Status)
    MOAT_RPC(RuntimeConfig)
    MOAT_RPC(UpdateRuntimeConfig)
    MOAT_RPC(RunPodSandbox)
    MOAT_RPC(StopPodSandbox)
    MOAT_RPC(RemovePodSandbox)
    MOAT_RPC(PodSandboxStatus)
    MOAT_RPC(ListPodSandbox)
    MOAT_RPC(UpdatePodSandboxResources)
    MOAT_RPC(CreateContainer)
    MOAT_RPC(StartContainer)
    MOAT_RPC(StopContainer)
    MOAT_RPC(RemoveContainer)
    MOAT_RPC(ListContainers)
    MOAT_RPC(ContainerStatus)
    MOAT_RPC(ExecSync)
    MOAT_RPC(ReopenContainerLog)
    MOAT_RPC(UpdateContainerResources)
    MOAT_RPC(ContainerStats)
    MOAT_RPC(ListContainerStats)
    MOAT_RPC(PodSandboxStats)
    MOAT_RPC(ListPodSandboxStats)
    MOAT_RPC(ListMetricDescriptors)
    MOAT_RPC(ListPodSandboxMetrics)
    MOAT_RPC(Exec)
    MOAT_RPC(Attach)
    MOAT_RPC(PortForward)
    MOAT_STREAM(StreamPodSandboxes, StreamPodSandboxesRequest, StreamPodSandboxesResponse)
    MOAT_STREAM(StreamContainers, StreamContainersRequest, StreamContainersResponse)
    MOAT_STREAM(StreamContainerStats, StreamContainerStatsRequest, StreamContainerStatsResponse)
    MOAT_STREAM(StreamPodSandboxStats, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse)
    MOAT_STREAM(StreamPodSandboxMetrics, StreamPodSandboxMetricsRequest,
                StreamPodSandboxMetricsResponse)
    MOAT_STREAM(GetContainerEvents, GetEventsRequest, ContainerEventResponse)
};

class CheckedImageService final : public ImageService {
    using Base = ImageService;

  public:
    using ImageService::ImageService;
    MOAT_RPC(ListImages)
    MOAT_RPC(ImageStatus)
    MOAT_RPC(PullImage)
    MOAT_RPC(RemoveImage)
    MOAT_RPC(ImageFsInfo)
    MOAT_STREAM(StreamImages, StreamImagesRequest, StreamImagesResponse)
};

#undef MOAT_STREAM
#undef MOAT_RPC

}  // namespace moat::cri
