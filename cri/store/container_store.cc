#include "cri/store/container_store.h"

#include <nlohmann/json.hpp>

#include "api.pb.h"

namespace moat::cri {

using nlohmann::json;
namespace api = ::runtime::v1;

Status ContainerStore::insert(const ContainerRecord& c) {
    const std::string details = json{
        {"uid", c.user.uid},
        {"gid", c.user.gid},
        {"groups", c.user.groups},
        {"stop_signal",
         c.stop_signal}}.dump();
    // Bytes that are no configuration have no mounts.
    api::ContainerConfig config;
    if (!config.ParseFromString(c.config)) {
        config.Clear();
    }
    TRY(database_.check_room());
    auto transaction = TRY(database_.begin());
    TRY(transaction.run(
        "INSERT INTO containers (id, pod_id, name, attempt, state, created_at, started_at, "
        "finished_at,"
        " exit_code, reason, message, image_id, image_ref, chain_id, log_path, config, details)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        c.id, c.pod_id, c.name, c.attempt, c.phase, c.created_at_ns, c.started_at_ns,
        c.finished_at_ns, c.exit_code, c.reason, c.message, c.image_id, c.image_ref, c.chain_id,
        c.log_path, Blob{c.config}, details));
    // What image_volumes.cc has resolved.
    for (const auto& mount : config.mounts()) {
        if (mount.has_image() && !mount.image().image_ref().empty()) {
            TRY(
                transaction.run("INSERT OR IGNORE INTO container_volumes (container_id, chain_id)"
                                " SELECT ?, chain_id FROM images WHERE id=?",
                                c.id, mount.image().image_ref()));
        }
    }
    return transaction.commit();
}

Status ContainerStore::update(const ContainerRecord& c) {
    constexpr std::string_view kUpdate =
        "UPDATE containers SET state=?, created_at=?, started_at=?, finished_at=?, exit_code=?, "
        "reason=?, message=?, resources=? WHERE id=?";
    const auto with = [&](auto write) {
        return write(c.phase, c.created_at_ns, c.started_at_ns, c.finished_at_ns, c.exit_code,
                     c.reason, c.message, Blob{c.resources}, c.id);
    };
    return c.phase == ContainerPhase::kExited || c.phase == ContainerPhase::kRemoving
               ? with([&](const auto&... v) { return database_.run_freeing(kUpdate, v...); })
               : with([&](const auto&... v) { return database_.run(kUpdate, v...); });
}

Status ContainerStore::erase(const std::string& id) {
    return database_.run_freeing("DELETE FROM containers WHERE id=?", id);
}

Result<std::vector<ContainerRecord>> ContainerStore::all() {
    std::vector<ContainerRecord> containers;
    std::vector<std::string> details;
    TRY(database_.query(
        "SELECT id, pod_id, name, attempt, state, created_at, started_at, finished_at, exit_code, "
        "reason,"
        " message, image_id, image_ref, chain_id, log_path, config, details, "
        "resources FROM containers",
        [&](const Row& row) {
            ContainerRecord c;
            c.id = row.text(0);
            c.pod_id = row.text(1);
            c.name = row.text(2);
            c.attempt = static_cast<uint32_t>(row.integer(3));
            c.phase = static_cast<ContainerPhase>(row.integer(4));
            c.created_at_ns = row.integer(5);
            c.started_at_ns = row.integer(6);
            c.finished_at_ns = row.integer(7);
            c.exit_code = static_cast<int32_t>(row.integer(8));
            c.reason = row.text(9);
            c.message = row.text(10);
            c.image_id = row.text(11);
            c.image_ref = row.text(12);
            c.chain_id = row.text(13);
            c.log_path = row.text(14);
            c.config = row.text(15);
            details.push_back(row.text(16));
            c.resources = row.text(17);
            containers.push_back(std::move(c));
        }));
    for (size_t i = 0; i < containers.size(); ++i) {
        try {
            const json value = json::parse(details[i]);
            containers[i].user.uid = value.at("uid");
            containers[i].user.gid = value.at("gid");
            containers[i].user.groups = value.at("groups").get<std::vector<uint32_t>>();
            containers[i].stop_signal = value.at("stop_signal");
        } catch (const json::exception& e) {
            return internal_error("container " + containers[i].id +
                                  ": column details: " + e.what());
        }
    }
    return containers;
}

}  // namespace moat::cri
