#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>

#include "cri/handlers/handlers.h"
#include "cri/store/pod_store.h"

namespace runtime::v1 {
class PodSandboxConfig;
}
namespace moat::runtime {
class EventStream;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// One pod. Made by RunPodSandbox or from the database; dies when it is removed and the last call
/// that holds it returns.
struct Pod {
    const std::string id;
    const std::shared_ptr<const api::PodSandboxConfig> config;
    Handler& handler;  ///< how it is run, all its life

    /// Exclusive: run, stop, remove. Shared: whatever makes or starts containers in the pod, so
    /// that a stop finds all of them. Held across the runtime's and the plugins' work.
    std::shared_mutex operation;

    std::mutex mu;
    PodRecord record;      ///< guarded by mu; a change is in the database before it is here
    std::mutex record_mu;  ///< beside mu while `record` is assigned, as in Container

    /// The thread that reads the sandbox's events; guarded, like the rest, by watch_mu.
    std::mutex watch_mu;
    std::thread watcher;
    std::shared_ptr<runtime::EventStream> events;
    bool watch_stopped = false;
    std::condition_variable watch_changed;

    Pod(PodRecord pod_record, std::shared_ptr<const api::PodSandboxConfig> pod_config,
        Handler& pod_handler)
        : id(pod_record.id),
          config(std::move(pod_config)),
          handler(pod_handler),
          record(std::move(pod_record)) {}

    runtime::Runtime& runtime() const { return *handler.runtime; }

    /// The caller holds mu.
    void set_record(PodRecord value) {
        const std::lock_guard lock(record_mu);
        record = std::move(value);
    }
    /// The record as it is in the database. Does not wait for a change that is being written.
    PodRecord snapshot() {
        const std::lock_guard lock(record_mu);
        return record;
    }
};

using PodPtr = std::shared_ptr<Pod>;

}  // namespace moat::cri
