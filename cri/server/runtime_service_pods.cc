#include <nlohmann/json.hpp>

#include "cri/server/convert.h"
#include "cri/server/node.h"
#include "cri/server/runtime_service.h"

namespace moat::cri {

namespace {

std::string pod_info(const PodRecord& record, const std::string& network_namespace) {
    static constexpr const char* kKinds[] = {"node", "cni", "builtin"};
    nlohmann::json info = {{"id", record.id},
                           {"networkNamespace", network_namespace},
                           {"network", kKinds[static_cast<int>(record.network.kind)]},
                           {"runtimeHandler", record.runtime}};
    if (!record.network.cni_result.empty()) {
        info["cniResult"] = nlohmann::json::parse(record.network.cni_result, nullptr, false);
    }
    return info.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

::grpc::Status RuntimeService::RunPodSandbox(::grpc::ServerContext* context,
                                             const api::RunPodSandboxRequest* request,
                                             api::RunPodSandboxResponse* response) {
    auto id = node_.pods->run(request->config(), request->runtime_handler());
    if (!id.ok()) {
        return to_grpc(id.error());
    }
    if (context->IsCancelled()) {
        // Nobody will ever hear of it: half a pod in the client's eyes.
        (void)node_.pods->remove(*id);
        return {::grpc::StatusCode::CANCELLED, "the client did not wait for its pod"};
    }
    response->set_pod_sandbox_id(*id);
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::StopPodSandbox(::grpc::ServerContext*,
                                              const api::StopPodSandboxRequest* request,
                                              api::StopPodSandboxResponse*) {
    return to_grpc(node_.pods->stop(request->pod_sandbox_id()));
}

::grpc::Status RuntimeService::RemovePodSandbox(::grpc::ServerContext*,
                                                const api::RemovePodSandboxRequest* request,
                                                api::RemovePodSandboxResponse*) {
    return to_grpc(node_.pods->remove(request->pod_sandbox_id()));
}

::grpc::Status RuntimeService::PodSandboxStatus(::grpc::ServerContext*,
                                                const api::PodSandboxStatusRequest* request,
                                                api::PodSandboxStatusResponse* response) {
    const auto pod = node_.pods->find(request->pod_sandbox_id());
    if (!pod.ok()) {
        return to_grpc(pod.error());
    }
    const PodRecord record = (*pod)->snapshot();
    response->set_timestamp(told_now_ns());
    fill(*response->mutable_status(), record, *(*pod)->config);
    for (const ContainerPtr& container : node_.containers->list()) {
        if (container->pod_id == record.id) {
            fill(*response->add_containers_statuses(), container->snapshot(), *container->config);
        }
    }
    if (request->verbose()) {
        (*response->mutable_info())["info"] =
            pod_info(record, node_.pods->network_namespace(record));
        const NetworkChecks::Answer checked = node_.pods->check_network(record.id);
        (*response->mutable_info())["networkCheck"] = checked.result;
        if (checked.at_ns != 0) {
            (*response->mutable_info())["networkCheckedAt"] = std::to_string(checked.at_ns);
        }
    }
    return ::grpc::Status::OK;
}

std::vector<api::PodSandbox> RuntimeService::pods(const api::PodSandboxFilter& filter) {
    std::vector<api::PodSandbox> found;
    for (const PodPtr& pod : node_.pods->list()) {
        const PodRecord record = pod->snapshot();
        // One that is still being made has not been announced to anybody.
        if (record.state == PodState::kCreating) {
            continue;
        }
        api::PodSandbox item;
        fill(item, record, *pod->config);
        if (matches(filter, item)) {
            found.push_back(std::move(item));
        }
    }
    return found;
}

::grpc::Status RuntimeService::ListPodSandbox(::grpc::ServerContext*,
                                              const api::ListPodSandboxRequest* request,
                                              api::ListPodSandboxResponse* response) {
    for (api::PodSandbox& pod : pods(request->filter())) {
        *response->add_items() = std::move(pod);
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::UpdatePodSandboxResources(
    ::grpc::ServerContext*, const api::UpdatePodSandboxResourcesRequest* request,
    api::UpdatePodSandboxResourcesResponse*) {
    return to_grpc(
        node_.pods->update(request->pod_sandbox_id(), request->resources(), request->overhead()));
}

}  // namespace moat::cri
