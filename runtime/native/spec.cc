#include "runtime/native/spec.h"

#include "kernel/control/messages.h"

namespace moat::runtime {

using control::Json;

Result<NativeSpec> native_spec(const std::string& config, const NativePod& pod,
                               const NativeContainer& container) {
    try {
        NativeSpec out;
        Json spec = Json::parse(config);
        out.lower = spec.at("root").at("path");
        spec["root"]["path"] = container.rootfs();
        // The pod's host name is set already, or is the node's.
        spec.erase("hostname");
        Json& guest = spec.at("linux");
        guest["cgroupsPath"] = container.cgroup;
        const std::string held = "/proc/" + std::to_string(pod.pause.pid) + "/ns/";
        const bool node_network = pod.network_namespace.empty();
        Json namespaces = Json::array();
        for (Json& entry : guest.at("namespaces")) {
            const std::string type = entry.at("type");
            if (type == "network") {
                if (node_network) {
                    continue;
                }
                entry["path"] = pod.network_namespace;
            } else if (type == "uts") {
                if (node_network) {
                    continue;
                }
                entry["path"] = held + "uts";
            } else if (type == "ipc") {
                if (pod.host_ipc) {
                    continue;
                }
                entry["path"] = held + "ipc";
            } else if (type == "user") {
                entry["path"] = held + "user";
            }
            namespaces.push_back(std::move(entry));
        }
        guest["namespaces"] = std::move(namespaces);
        if (const auto resources = guest.find("resources"); resources != guest.end()) {
            for (const Json& limit : resources->value("hugepageLimits", Json::array())) {
                out.huge_pages[limit.at("pageSize")] = limit.at("limit");
            }
            resources->erase("hugepageLimits");
        }
        out.config = spec.dump(1);
        return out;
    } catch (const Json::exception& e) {
        return Error(EINVAL, std::string("config.json: ") + e.what());
    }
}

}  // namespace moat::runtime
