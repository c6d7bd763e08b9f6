#pragma once

#include <string>
#include <vector>

#include "cri/store/database.h"

namespace moat::cri {

/// Values are in the database: never renumber.
enum class ContainerPhase : int64_t {
    kCreating = 0,  ///< intent: whoever finds it at start undoes it
    kCreated = 1,
    kRunning = 2,  ///< written before the start: the runtime's own state settles it after a kill
    kExited = 3,
    kRemoving = 4,  ///< intent: files and row are about to go
};

/// Who the container's first process runs as.
struct UserIds {
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::vector<uint32_t> groups;
};

struct ContainerRecord {
    std::string id;
    std::string pod_id;
    std::string name;
    uint32_t attempt = 0;
    ContainerPhase phase = ContainerPhase::kCreating;
    int64_t created_at_ns = 0;
    int64_t started_at_ns = 0;
    int64_t finished_at_ns = 0;
    int32_t exit_code = 0;
    std::string reason;
    std::string message;
    std::string image_id;
    std::string image_ref;
    std::string chain_id;  ///< keeps the image's root from being collected
    std::string log_path;  ///< absolute; empty: no log
    std::string config;    ///< serialised ContainerConfig
    UserIds user;
    int stop_signal = 15;
    std::string resources;  ///< serialised LinuxContainerResources, once they were updated
};

/// Table `containers`.
class ContainerStore {
  public:
    explicit ContainerStore(Database& database) : database_(database) {}
    /// EEXIST when the pod has a container of that name and attempt.
    Status insert(const ContainerRecord& container);
    /// Writes the fields that change in a container's life: phase, times, exit, resources.
    Status update(const ContainerRecord& container);
    Status erase(const std::string& id);
    Result<std::vector<ContainerRecord>> all();

  private:
    Database& database_;
};

}  // namespace moat::cri
