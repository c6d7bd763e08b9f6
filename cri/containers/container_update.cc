#include <spdlog/spdlog.h>

#include "api.pb.h"
#include "cri/containers/container_manager.h"
#include "cri/containers/resources.h"
#include "cri/containers/spec.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

/// What the kernel says of a value is the client's business, what it says of our files is not.
Error update_error(const Error& error, const std::string& step) {
    switch (error.code()) {
        case EINVAL:
        case ERANGE:
            return Error(EINVAL, step + ": " + error.message());
        case EBUSY:
            return error.within(step);
        default:
            return host_error(error, step);
    }
}

}  // namespace

Status ContainerManager::update(const std::string& id,
                                const api::LinuxContainerResources& changes) {
    TRY(check_resources(changes));
    const ContainerPtr container = TRY(find(id));
    const std::string step = "container " + container->id + ": update its resources";
    const std::lock_guard operation(container->operation);
    const ContainerRecord record = container->snapshot();
    const bool live = record.phase == ContainerPhase::kRunning;
    if (!live && record.phase != ContainerPhase::kCreated &&
        record.phase != ContainerPhase::kExited) {
        return wrong_state(step + ": it is being removed");
    }
    const api::LinuxContainerResources before = resources_of(record, *container->config);
    if (live) {
        if (const Status updated = container->runtime.update(container->id, to_resources(changes));
            !updated.ok()) {
            return update_error(updated.error(), step);
        }
    }
    api::LinuxContainerResources now = before;
    merge_resources(now, changes);
    Status recorded;
    {
        const std::lock_guard lock(container->mu);
        ContainerRecord changed = container->record;
        changed.resources = now.SerializeAsString();
        recorded = change(*container, changed);
    }
    if (recorded.ok() && record.phase == ContainerPhase::kCreated) {
        recorded = prepare(*container);  // it starts with them
        if (!recorded.ok()) {
            const std::lock_guard lock(container->mu);
            ContainerRecord changed = container->record;
            changed.resources = record.resources;
            (void)change(*container, changed);
        }
    }
    if (!recorded.ok()) {
        // The client is told that nothing changed.
        if (live) {
            (void)container->runtime.update(container->id,
                                            to_resources(revert_of(before, changes)));
        }
        return recorded.error().within(step);
    }
    spdlog::info("container {}: pod {}: resources updated: {}", container->id, container->pod_id,
                 changes.ShortDebugString());
    return {};
}

}  // namespace moat::cri
