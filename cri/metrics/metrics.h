#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace moat::cri {

/// What moatd counts, in Prometheus' words, declared in metrics.cc and nowhere else. Each family is
/// there from the start with one child, so that a scrape shows all there are; e2e/cri fails when
/// its run leaves one at zero. All functions are thread-safe and of the process as a whole.
namespace metrics {

void rpc_done(std::string_view method, std::string_view code, double seconds);
void rpc_started();
void rpc_ended();

void image_pulled(bool ok, double seconds);
void image_bytes(uint64_t bytes);

/// network, cgroup, sentry, gofer, first_container.
void sandbox_phase(std::string_view phase, double seconds);
void cni_call(std::string_view verb, bool ok, double seconds);
/// What a start found of the last moatd: pod_found_again, pod_died, pod_undone, pod_stopped,
/// container_undone, stray_removed.
void recovered(std::string_view what);
void config_reloaded(bool ok);

/// A sentry's counters at this moment, of a living pod.
struct SentrySample {
    std::string pod_id;
    std::map<std::string, uint64_t> unsupported;  ///< since the sentry started
    uint64_t memory_bytes = 0;
    uint64_t threads = 0;
};
/// Adds what is new since the last sample of each pod; pods that are not in `samples` and not in
/// `alive` are forgotten. At most kMaxNames names of calls are kept apart; the rest is "other".
void sentries_sampled(const std::vector<SentrySample>& samples,
                      const std::vector<std::string>& alive);

/// Number of objects by state and handler; replaces what the last call said.
struct ObjectCount {
    std::string kind;  ///< pods or containers
    std::string state;
    std::string handler;
    uint64_t count = 0;
};
void objects_counted(const std::vector<ObjectCount>& counts);

/// The exposition format 0.0.4.
std::string expose();

}  // namespace metrics
}  // namespace moat::cri
