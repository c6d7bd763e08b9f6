#include "cri/server/convert.h"
#include "cri/server/node.h"
#include "cri/server/runtime_service.h"
#include "cri/stats/messages.h"

namespace moat::cri {

std::vector<api::ContainerStats> RuntimeService::container_stats(
    const api::ContainerStatsFilter& filter) {
    const FilesystemFigures fs = node_.stats->containers_filesystem();
    std::vector<api::ContainerStats> all;
    for (const ContainerFigures& figures : node_.stats->containers(
             [&](const Container& container) { return matches(filter, container); })) {
        fill(all.emplace_back(), figures, fs);
    }
    return all;
}

std::vector<api::PodSandboxStats> RuntimeService::pod_stats(
    const api::PodSandboxStatsFilter& filter) {
    const FilesystemFigures fs = node_.stats->containers_filesystem();
    std::vector<api::PodSandboxStats> all;
    for (const PodFigures& figures :
         node_.stats->pods([&](const Pod& pod) { return matches(filter, pod); })) {
        fill(all.emplace_back(), figures, fs);
    }
    return all;
}

std::vector<api::PodSandboxMetrics> RuntimeService::pod_metrics() {
    const FilesystemFigures fs = node_.stats->containers_filesystem();
    std::vector<api::PodSandboxMetrics> all;
    for (const PodFigures& figures : node_.stats->pods([](const Pod&) { return true; })) {
        fill(all.emplace_back(), figures, fs);
    }
    return all;
}

::grpc::Status RuntimeService::ContainerStats(::grpc::ServerContext*,
                                              const api::ContainerStatsRequest* request,
                                              api::ContainerStatsResponse* response) {
    const auto figures = node_.stats->container(request->container_id());
    if (!figures.ok()) {
        return to_grpc(figures.error());
    }
    fill(*response->mutable_stats(), *figures, node_.stats->containers_filesystem());
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ListContainerStats(::grpc::ServerContext*,
                                                  const api::ListContainerStatsRequest* request,
                                                  api::ListContainerStatsResponse* response) {
    for (api::ContainerStats& stats : container_stats(request->filter())) {
        *response->add_stats() = std::move(stats);
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::PodSandboxStats(::grpc::ServerContext*,
                                               const api::PodSandboxStatsRequest* request,
                                               api::PodSandboxStatsResponse* response) {
    const auto figures = node_.stats->pod(request->pod_sandbox_id());
    if (!figures.ok()) {
        return to_grpc(figures.error());
    }
    fill(*response->mutable_stats(), *figures, node_.stats->containers_filesystem());
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ListPodSandboxStats(::grpc::ServerContext*,
                                                   const api::ListPodSandboxStatsRequest* request,
                                                   api::ListPodSandboxStatsResponse* response) {
    for (api::PodSandboxStats& stats : pod_stats(request->filter())) {
        *response->add_stats() = std::move(stats);
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ListMetricDescriptors(::grpc::ServerContext*,
                                                     const api::ListMetricDescriptorsRequest*,
                                                     api::ListMetricDescriptorsResponse* response) {
    fill(*response);
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ListPodSandboxMetrics(::grpc::ServerContext*,
                                                     const api::ListPodSandboxMetricsRequest*,
                                                     api::ListPodSandboxMetricsResponse* response) {
    for (api::PodSandboxMetrics& metrics : pod_metrics()) {
        *response->add_pod_metrics() = std::move(metrics);
    }
    return ::grpc::Status::OK;
}

}  // namespace moat::cri
