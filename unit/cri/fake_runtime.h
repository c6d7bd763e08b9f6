#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/runtime.h"

namespace moat::runtime {

/// The world behind runtime::Runtime in these tests: it outlives the Runtime objects, as sandboxes
/// outlive a moatd. Functions of Runtime work on it (fake_runtime.cc).
struct FakeWorld {
    struct Container {
        std::string sandbox_id;
        control::ContainerState state = control::ContainerState::kCreated;
        std::optional<control::ExitStatus> exit;
        std::string bundle;
        bool ignores_term = false;
    };
    std::mutex mu;
    std::map<std::string, bool> sandboxes;  ///< id -> alive
    std::map<std::string, Container> containers;
    std::vector<std::string> calls;
    std::string fail_at;  ///< the call of this name fails once

    static FakeWorld& get();
    void reset();
    /// The guest's init ends; whoever listens hears of it.
    void end(const std::string& container_id, int code, int signal, bool oom = false);
    /// The sentry dies with all that is in it.
    void kill_sandbox(const std::string& id);
};

}  // namespace moat::runtime
