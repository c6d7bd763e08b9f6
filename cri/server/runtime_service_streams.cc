// The lists once more, for nodes whose answer would be too long for one message; and events.

#include "cri/server/node.h"
#include "cri/server/runtime_service.h"
#include "cri/server/stream_items.h"

namespace moat::cri {

::grpc::Status RuntimeService::StreamPodSandboxes(
    ::grpc::ServerContext*, const api::StreamPodSandboxesRequest* request,
    ResponseWriter<api::StreamPodSandboxesResponse>* writer) {
    return stream_items(*writer, pods(request->filter()),
                        [](auto& response) { return response.mutable_pod_sandboxes(); });
}

::grpc::Status RuntimeService::StreamContainers(
    ::grpc::ServerContext*, const api::StreamContainersRequest* request,
    ResponseWriter<api::StreamContainersResponse>* writer) {
    return stream_items(*writer, containers(request->filter()),
                        [](auto& response) { return response.mutable_containers(); });
}

::grpc::Status RuntimeService::StreamContainerStats(
    ::grpc::ServerContext*, const api::StreamContainerStatsRequest* request,
    ResponseWriter<api::StreamContainerStatsResponse>* writer) {
    return stream_items(*writer, container_stats(request->filter()),
                        [](auto& response) { return response.mutable_container_stats(); });
}

::grpc::Status RuntimeService::StreamPodSandboxStats(
    ::grpc::ServerContext*, const api::StreamPodSandboxStatsRequest* request,
    ResponseWriter<api::StreamPodSandboxStatsResponse>* writer) {
    return stream_items(*writer, pod_stats(request->filter()),
                        [](auto& response) { return response.mutable_pod_sandbox_stats(); });
}

::grpc::Status RuntimeService::StreamPodSandboxMetrics(
    ::grpc::ServerContext*, const api::StreamPodSandboxMetricsRequest*,
    ResponseWriter<api::StreamPodSandboxMetricsResponse>* writer) {
    return stream_items(*writer, pod_metrics(),
                        [](auto& response) { return response.mutable_pod_sandbox_metrics(); });
}

::grpc::Status RuntimeService::GetContainerEvents(
    ::grpc::ServerContext* context, const api::GetEventsRequest*,
    ResponseWriter<api::ContainerEventResponse>* writer) {
    // How soon a client that went away is noticed, where nothing happens.
    constexpr std::chrono::milliseconds kLook{500};
    const auto subscription = node_.events.subscribe();
    if (!subscription.ok()) {
        return to_grpc(subscription.error());
    }
    // From here on nothing is missed, and the client may know.
    writer->send_headers();
    while (!context->IsCancelled()) {
        const auto event = (*subscription)->next(kLook);
        if (!event.ok()) {
            return to_grpc(event.error());
        }
        if (*event != nullptr && !writer->write(**event)) {
            break;
        }
    }
    return {::grpc::StatusCode::CANCELLED, "the client has gone"};
}

}  // namespace moat::cri
