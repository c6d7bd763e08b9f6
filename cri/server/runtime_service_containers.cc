#include <nlohmann/json.hpp>

#include "cri/server/convert.h"
#include "cri/server/node.h"
#include "cri/server/runtime_service.h"

namespace moat::cri {

::grpc::Status RuntimeService::CreateContainer(::grpc::ServerContext* context,
                                               const api::CreateContainerRequest* request,
                                               api::CreateContainerResponse* response) {
    auto id = node_.containers->create(request->pod_sandbox_id(), request->config());
    if (!id.ok()) {
        return to_grpc(id.error());
    }
    if (context->IsCancelled()) {
        (void)node_.containers->remove(*id);
        return {::grpc::StatusCode::CANCELLED, "the client did not wait for its container"};
    }
    response->set_container_id(*id);
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::StartContainer(::grpc::ServerContext*,
                                              const api::StartContainerRequest* request,
                                              api::StartContainerResponse*) {
    return to_grpc(node_.containers->start(request->container_id()));
}

::grpc::Status RuntimeService::StopContainer(::grpc::ServerContext*,
                                             const api::StopContainerRequest* request,
                                             api::StopContainerResponse*) {
    if (request->timeout() < 0) {
        return to_grpc(invalid_argument("timeout: negative"));
    }
    return to_grpc(
        node_.containers->stop(request->container_id(), std::chrono::seconds(request->timeout())));
}

::grpc::Status RuntimeService::RemoveContainer(::grpc::ServerContext*,
                                               const api::RemoveContainerRequest* request,
                                               api::RemoveContainerResponse*) {
    return to_grpc(node_.containers->remove(request->container_id()));
}

std::vector<api::Container> RuntimeService::containers(const api::ContainerFilter& filter) {
    std::vector<api::Container> found;
    for (const ContainerPtr& container : node_.containers->list()) {
        api::Container item;
        fill(item, container->snapshot(), *container->config);
        if (matches(filter, item)) {
            found.push_back(std::move(item));
        }
    }
    return found;
}

::grpc::Status RuntimeService::ListContainers(::grpc::ServerContext*,
                                              const api::ListContainersRequest* request,
                                              api::ListContainersResponse* response) {
    for (api::Container& container : containers(request->filter())) {
        *response->add_containers() = std::move(container);
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ContainerStatus(::grpc::ServerContext*,
                                               const api::ContainerStatusRequest* request,
                                               api::ContainerStatusResponse* response) {
    const auto container = node_.containers->find(request->container_id());
    if (!container.ok()) {
        return to_grpc(container.error());
    }
    const ContainerRecord record = (*container)->snapshot();
    fill(*response->mutable_status(), record, *(*container)->config);
    if (request->verbose()) {
        const std::string bundle = node_.settings.container_directory(record.id);
        nlohmann::json info = {{"sandboxID", record.pod_id},
                               {"bundle", bundle},
                               {"rootfs", node_.images->root_path(record.chain_id)}};
        std::string text = info.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        if (const auto spec = read_file(bundle + "/config.json", 16 << 20);
            spec.ok() && spec->starts_with('{')) {
            // Our own JSON as it is: to take it apart would cost more than the rest of the call.
            text.replace(text.size() - 1, 1, ",\"runtimeSpec\":" + *spec + "}");
        }
        (*response->mutable_info())["info"] = std::move(text);
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::UpdateContainerResources(
    ::grpc::ServerContext*, const api::UpdateContainerResourcesRequest* request,
    api::UpdateContainerResourcesResponse*) {
    return to_grpc(node_.containers->update(request->container_id(), request->linux()));
}

::grpc::Status RuntimeService::ExecSync(::grpc::ServerContext*, const api::ExecSyncRequest* request,
                                        api::ExecSyncResponse* response) {
    auto result = node_.containers->exec_sync(request->container_id(),
                                              {request->cmd().begin(), request->cmd().end()},
                                              std::chrono::seconds(request->timeout()));
    if (!result.ok()) {
        return to_grpc(result.error());
    }
    response->set_stdout(std::move(result->out));
    response->set_stderr(std::move(result->err));
    response->set_exit_code(result->exit_code);
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::ReopenContainerLog(::grpc::ServerContext*,
                                                  const api::ReopenContainerLogRequest* request,
                                                  api::ReopenContainerLogResponse*) {
    return to_grpc(node_.containers->reopen_log(request->container_id()));
}

}  // namespace moat::cri
