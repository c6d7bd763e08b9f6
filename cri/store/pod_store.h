#pragma once

#include <string>
#include <vector>

#include "cri/store/database.h"

namespace moat::cri {

/// Values are in the database: never renumber.
enum class PodState : int64_t {
    kCreating = 0,  ///< intent: whoever finds it at start undoes it
    kReady = 1,
    kStopping = 2,  ///< intent: network and sandbox are being taken down
    kStopped = 3,
    kRemoving = 4,  ///< intent: files and row are about to go
    kDied = 5,      ///< its sentry is gone, its network is not: a stop is still to come
};

/// What the pod's network consists of; JSON in the database. Written before anything of it is made.
struct PodNetwork {
    enum class Kind { kNode, kCni, kBuiltin };
    Kind kind = Kind::kNode;
    std::string namespace_path;    ///< bind mount of the pod's namespace; empty for kNode
    std::vector<std::string> ips;  ///< without prefix length, the primary first
    std::string cni_config;        ///< the conflist that was used: DEL must see the same
    std::string cni_result;        ///< of the last plugin of ADD
};

struct PodRecord {
    std::string id;
    std::string name;
    std::string name_space;
    std::string uid;
    uint32_t attempt = 0;
    std::string handler;  ///< as the client said it; "": the default of that moment, which is
    std::string runtime = "moat";  ///< the name of the handler that runs it
    PodState state = PodState::kCreating;
    int64_t created_at_ns = 0;
    std::string config;  ///< serialised PodSandboxConfig
    PodNetwork network;
};

/// Table `pods`.
class PodStore {
  public:
    explicit PodStore(Database& database) : database_(database) {}
    /// EEXIST when a pod of that name, namespace, uid and attempt is there.
    Status insert(const PodRecord& pod);
    /// Writes the fields that change in a pod's life: state, network.
    Status update(const PodRecord& pod);
    Status erase(const std::string& id);
    Result<std::vector<PodRecord>> all();

  private:
    Database& database_;
};

}  // namespace moat::cri
