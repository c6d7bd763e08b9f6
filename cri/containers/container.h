#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "cri/store/container_store.h"

namespace runtime::v1 {
class ContainerConfig;
class LinuxContainerResources;
}  // namespace runtime::v1
namespace moat::runtime {
class Runtime;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// One container. Made by CreateContainer or from the database; dies when it is removed and the
/// last call that holds it returns.
struct Container {
    const std::string id;
    const std::string pod_id;
    const std::shared_ptr<const api::ContainerConfig> config;
    runtime::Runtime& runtime;  ///< its pod's

    /// Held by create, start and remove for their whole length, so that they do not overtake each
    /// other. Not by a stop, which waits for the guest: a second stop with a shorter grace period
    /// must get through.
    std::mutex operation;

    std::mutex mu;
    std::condition_variable changed;  ///< notified when record.phase changes
    ContainerRecord record;  ///< guarded by mu; a change is in the database before it is here
    /// Beside mu while `record` is assigned: mu is held while the database writes, and who only
    /// looks does not wait for that.
    std::mutex record_mu;
    /// A start is on its way, whose event comes before that of an end; guarded by mu.
    bool starting = false;
    bool end_untold = false;  ///< it ended meanwhile; guarded by mu
    /// Held while the runtime forgets one that has ended; nothing but the runtime is called under
    /// it.
    std::mutex release_mu;
    bool released = false;  ///< the runtime has forgotten it; guarded by release_mu
    /// Copied by those who still want something of the runtime (an exec's exit, the last output)
    /// when it has ended: it is not released then, but removed later.
    const std::shared_ptr<char> in_use = std::make_shared<char>();

    Container(ContainerRecord container_record,
              std::shared_ptr<const api::ContainerConfig> container_config,
              runtime::Runtime& pod_runtime)
        : id(container_record.id),
          pod_id(container_record.pod_id),
          config(std::move(container_config)),
          runtime(pod_runtime),
          record(std::move(container_record)) {}

    /// The caller holds mu.
    void set_record(ContainerRecord value) {
        const std::lock_guard lock(record_mu);
        record = std::move(value);
    }
    /// The record as it is in the database. Does not wait for a change that is being written.
    ContainerRecord snapshot() {
        const std::lock_guard lock(record_mu);
        return record;
    }
};

using ContainerPtr = std::shared_ptr<Container>;

}  // namespace moat::cri
