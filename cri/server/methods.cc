#include "cri/server/methods.h"

namespace moat::cri {

void add_methods(RpcServer& server, CheckedRuntimeService& runtime, CheckedImageService& images) {
    using Runtime = CheckedRuntimeService;
    using Images = CheckedImageService;
    const auto of_runtime = [&](const char* name, RpcServer::Waits waits, auto method) {
        server.add(std::string("/runtime.v1.RuntimeService/") + name, waits, runtime, method);
    };
    const auto of_images = [&](const char* name, RpcServer::Waits waits, auto method) {
        server.add(std::string("/runtime.v1.ImageService/") + name, waits, images, method);
    };
#define MOAT_NEVER(Name) of_runtime(#Name, RpcServer::Waits::kNever, &Runtime::Name)
#define MOAT_MAY(Name) of_runtime(#Name, RpcServer::Waits::kMay, &Runtime::Name)
#define MOAT_STREAM(Name) server.add("/runtime.v1.RuntimeService/" #Name, runtime, &Runtime::Name)
    // What these look at is in memory: records that are copied under locks of their own
    // (Container::snapshot), images behind ImageStore's catalogue. The verbose ones read what was
    // just written.
    MOAT_NEVER(Version);
    MOAT_NEVER(PodSandboxStatus);
    MOAT_NEVER(ListPodSandbox);
    MOAT_NEVER(ContainerStatus);
    MOAT_NEVER(ListContainers);

    MOAT_MAY(Status);
    MOAT_MAY(RuntimeConfig);
    MOAT_MAY(UpdateRuntimeConfig);
    MOAT_MAY(RunPodSandbox);
    MOAT_MAY(StopPodSandbox);
    MOAT_MAY(RemovePodSandbox);
    MOAT_MAY(UpdatePodSandboxResources);
    MOAT_MAY(CreateContainer);
    MOAT_MAY(StartContainer);
    MOAT_MAY(StopContainer);
    MOAT_MAY(RemoveContainer);
    MOAT_MAY(ExecSync);
    MOAT_MAY(ReopenContainerLog);
    MOAT_MAY(UpdateContainerResources);
    MOAT_MAY(ContainerStats);
    MOAT_MAY(ListContainerStats);
    MOAT_MAY(PodSandboxStats);
    MOAT_MAY(ListPodSandboxStats);
    MOAT_MAY(ListMetricDescriptors);
    MOAT_MAY(ListPodSandboxMetrics);
    MOAT_MAY(Exec);
    MOAT_MAY(Attach);
    MOAT_MAY(PortForward);
    MOAT_MAY(CheckpointContainer);
    MOAT_MAY(CheckpointPod);
    MOAT_MAY(RestorePod);

    MOAT_STREAM(StreamPodSandboxes);
    MOAT_STREAM(StreamContainers);
    MOAT_STREAM(StreamContainerStats);
    MOAT_STREAM(StreamPodSandboxStats);
    MOAT_STREAM(StreamPodSandboxMetrics);
    MOAT_STREAM(GetContainerEvents);
#undef MOAT_STREAM
#undef MOAT_MAY
#undef MOAT_NEVER

    of_images("ListImages", RpcServer::Waits::kNever, &Images::ListImages);
    of_images("ImageStatus", RpcServer::Waits::kNever, &Images::ImageStatus);
    of_images("PullImage", RpcServer::Waits::kMay, &Images::PullImage);
    of_images("RemoveImage", RpcServer::Waits::kMay, &Images::RemoveImage);
    of_images("ImageFsInfo", RpcServer::Waits::kMay, &Images::ImageFsInfo);
    server.add("/runtime.v1.ImageService/StreamImages", images, &Images::StreamImages);
}

}  // namespace moat::cri
