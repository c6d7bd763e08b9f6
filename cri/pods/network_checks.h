#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cri/base/error.h"

namespace moat::cri {

/// CHECKs of pods' networks, which a person asks for (`crictl inspectp`). A CHECK runs every plugin
/// of a network, so nobody waits for one: a question starts it, a later one gets its answer.
class NetworkChecks {
  public:
    /// Returns nothing for a pod that is not there or does not run.
    using Check = std::function<std::optional<Status>(const std::string& pod_id)>;

    explicit NetworkChecks(Check check);
    ~NetworkChecks();
    NetworkChecks(const NetworkChecks&) = delete;
    NetworkChecks& operator=(const NetworkChecks&) = delete;

    struct Answer {
        std::string result;  ///< "ok", what is wrong, or that there is no answer yet
        int64_t at_ns = 0;   ///< when; 0: never
    };
    Answer ask(const std::string& pod_id);
    void forget(const std::string& pod_id);

  private:
    struct Item {
        Answer answer;
        bool wanted = false;
        std::chrono::steady_clock::time_point due;
    };
    void work();

    const Check check_;
    std::mutex mu_;
    std::condition_variable changed_;
    std::map<std::string, Item> items_;  ///< by pod id; guarded by mu_
    bool ending_ = false;                ///< guarded by mu_
    std::thread worker_;                 ///< started by the first question
};

}  // namespace moat::cri
