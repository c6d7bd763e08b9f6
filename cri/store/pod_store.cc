#include "cri/store/pod_store.h"

#include <nlohmann/json.hpp>

namespace moat::cri {

namespace {

using nlohmann::json;

std::string encode(const PodNetwork& network) {
    return json{{"kind", static_cast<int>(network.kind)},
                {"namespace", network.namespace_path},
                {"ips", network.ips},
                {"config", network.cni_config},
                {"result", network.cni_result}}
        .dump();
}

Result<PodNetwork> decode(const std::string& text) {
    try {
        const json value = json::parse(text);
        PodNetwork network;
        network.kind = static_cast<PodNetwork::Kind>(value.at("kind").get<int>());
        network.namespace_path = value.at("namespace");
        network.ips = value.at("ips").get<std::vector<std::string>>();
        network.cni_config = value.at("config");
        network.cni_result = value.at("result");
        return network;
    } catch (const json::exception& e) {
        return internal_error(std::string("column pods.network: ") + e.what());
    }
}

}  // namespace

Status PodStore::insert(const PodRecord& pod) {
    TRY(database_.check_room());
    constexpr std::string_view kInsert =
        "INSERT INTO pods (id, name, namespace, uid, attempt, handler, state, created_at, config, "
        "network, runtime)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?)";
    const auto insert = [&](auto write) {
        return write(kInsert, pod.id, pod.name, pod.name_space, pod.uid, pod.attempt, pod.handler,
                     pod.state, pod.created_at_ns, Blob{pod.config}, encode(pod.network),
                     pod.runtime);
    };
    // An address that a CNI plugin gave is kept in the plugin's own files, whatever becomes of us:
    // what will give it back must not be lost before it.
    return pod.network.kind == PodNetwork::Kind::kCni
               ? insert([&](const auto&... args) { return database_.run_synced(args...); })
               : insert([&](const auto&... args) { return database_.run(args...); });
}

Status PodStore::update(const PodRecord& pod) {
    constexpr std::string_view kUpdate = "UPDATE pods SET state=?, network=? WHERE id=?";
    const std::string network = encode(pod.network);
    return pod.state == PodState::kCreating || pod.state == PodState::kReady
               ? database_.run(kUpdate, pod.state, network, pod.id)
               : database_.run_freeing(kUpdate, pod.state, network, pod.id);
}

Status PodStore::erase(const std::string& id) {
    return database_.run_freeing("DELETE FROM pods WHERE id=?", id);
}

Result<std::vector<PodRecord>> PodStore::all() {
    std::vector<PodRecord> pods;
    std::vector<std::string> networks;
    TRY(
        database_.query("SELECT id, name, namespace, uid, attempt, handler, state, created_at, "
                        "config, network, runtime FROM pods",
                        [&](const Row& row) {
                            PodRecord pod;
                            pod.id = row.text(0);
                            pod.name = row.text(1);
                            pod.name_space = row.text(2);
                            pod.uid = row.text(3);
                            pod.attempt = static_cast<uint32_t>(row.integer(4));
                            pod.handler = row.text(5);
                            pod.state = static_cast<PodState>(row.integer(6));
                            pod.created_at_ns = row.integer(7);
                            pod.config = row.text(8);
                            networks.push_back(row.text(9));
                            pod.runtime = row.text(10);
                            pods.push_back(std::move(pod));
                        }));
    for (size_t i = 0; i < pods.size(); ++i) {
        pods[i].network = TRY_STEP("pod " + pods[i].id, decode(networks[i]));
    }
    return pods;
}

}  // namespace moat::cri
