#include <nlohmann/json.hpp>

#include "cri/server/node.h"
#include "cri/server/runtime_service.h"
#include "kernel/base/version.h"

namespace moat::cri {

::grpc::Status RuntimeService::Version(::grpc::ServerContext*, const api::VersionRequest*,
                                       api::VersionResponse* response) {
    response->set_version("0.1.0");  // of kubelet's runtime API, the same since dockershim
    response->set_runtime_name("moat");
    response->set_runtime_version(kVersion);
    response->set_runtime_api_version("v1");
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::Status(::grpc::ServerContext*, const api::StatusRequest* request,
                                      api::StatusResponse* response) {
    auto* runtime = response->mutable_status()->add_conditions();
    runtime->set_type("RuntimeReady");
    runtime->set_status(true);
    auto* network = response->mutable_status()->add_conditions();
    network->set_type("NetworkReady");
    const auto ready = node_.networks->ready();
    network->set_status(ready.ok());
    if (!ready.ok()) {
        network->set_reason("NetworkPluginNotReady");
        network->set_message(ready.error().message());
    }
    // The default handler is listed too: kubelet and critest look a pod's handler up by its exact
    // name.
    const auto tell = [&](const std::string& name, const Handler& handler) {
        auto* told = response->add_runtime_handlers();
        told->set_name(name);
        told->mutable_features()->set_recursive_read_only_mounts(
            handler.features.recursive_read_only_mounts);
        told->mutable_features()->set_user_namespaces(handler.features.user_namespaces);
    };
    tell("", node_.handlers->default_handler());
    nlohmann::json handlers = nlohmann::json::object();
    for (const auto& handler : node_.handlers->all()) {
        if (handler->unavailable.empty()) {
            tell(handler->name, *handler);
        }
        handlers[handler->name] = handler->unavailable.empty() ? "ready" : handler->unavailable;
    }
    response->mutable_features()->set_supplemental_groups_policy(true);
    response->mutable_features()->set_mount_options(true);
    if (request->verbose()) {
        const Settings s = node_.current_settings();
        (*response->mutable_info())["handlers"] = handlers.dump();
        (*response->mutable_info())["config"] = nlohmann::json{
            {"root", s.root},
            {"defaultHandler", s.default_handler},
            {"state", s.state},
            {"cniConfDir", s.cni_conf_dir},
            {"cniBinDir", s.cni_bin_dir},
            {"registryMirrors", s.registry_mirrors},
            {"registryConfigDir",
             s.registry_config_dir}}.dump();
    }
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::RuntimeConfig(::grpc::ServerContext*,
                                             const api::RuntimeConfigRequest*,
                                             api::RuntimeConfigResponse* response) {
    response->mutable_linux()->set_cgroup_driver(api::CGROUPFS);
    return ::grpc::Status::OK;
}

::grpc::Status RuntimeService::UpdateRuntimeConfig(::grpc::ServerContext*,
                                                   const api::UpdateRuntimeConfigRequest* request,
                                                   api::UpdateRuntimeConfigResponse*) {
    // A dual-stack node sends two ranges; the built-in network speaks IPv4, CNI plugins with the
    // capability ipRanges get both.
    const std::string& cidrs = request->runtime_config().network_config().pod_cidr();
    for (size_t at = 0; at < cidrs.size();) {
        const size_t end = std::min(cidrs.find(',', at), cidrs.size());
        const std::string cidr = cidrs.substr(at, end - at);
        if (cidr.find(':') == std::string::npos) {
            const auto set = node_.networks->builtin().set_range(cidr);
            if (!set.ok()) {
                return to_grpc(set.error().within("runtime_config.network_config.pod_cidr"));
            }
        }
        at = end + 1;
    }
    return to_grpc(cidrs.empty() ? moat::cri::Status()
                                 : node_.networks->builtin().set_node_ranges(cidrs));
}

}  // namespace moat::cri
