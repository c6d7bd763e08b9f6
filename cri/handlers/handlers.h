#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::runtime {
class Runtime;
}

namespace moat::cri {

struct Settings;

/// What Status tells about a handler beyond its name (CRI: RuntimeHandlerFeatures).
struct HandlerFeatures {
    bool recursive_read_only_mounts = false;
    bool user_namespaces = false;
};

/// Whose system calls a pod's processes make: decides which fields of a request can be honoured.
enum class Kernel { kSandbox, kNode };

/// A way of running pods, by the name that a RuntimeClass gives it. Lives as long as moatd: pods
/// and containers keep references to it.
struct Handler {
    std::string name;
    std::unique_ptr<runtime::Runtime> runtime;
    Kernel kernel = Kernel::kSandbox;
    HandlerFeatures features;
    std::string unavailable;  ///< why no pod can be made with it; empty: one can

    Handler(std::string handler_name, std::unique_ptr<runtime::Runtime> handler_runtime);
    ~Handler();
};

/// All handlers of this moatd. Immutable once the first pod is looked at.
class Handlers {
  public:
    Handlers();
    ~Handlers();

    /// The first one is the default unless set_default() says otherwise.
    Handler& add(std::string name, std::unique_ptr<runtime::Runtime> runtime);
    /// EINVAL: there is none of that name.
    Status set_default(const std::string& name);

    /// By the word of RunPodSandbox; "" is the default one. EINVAL names those that there are,
    /// EBUSY says why this one cannot make pods on this machine.
    Result<Handler*> choose(const std::string& requested) const;
    /// Of a pod in the database. ENOENT: a handler that this moatd does not have.
    Result<Handler*> find(const std::string& name) const;
    const Handler& default_handler() const { return *default_; }
    const std::vector<std::unique_ptr<Handler>>& all() const { return all_; }

  private:
    std::vector<std::unique_ptr<Handler>> all_;
    Handler* default_ = nullptr;
};

/// The handlers of a node: `moat`, pods with a kernel of their own; `native`, pods on the node's,
/// by runc or crun.
Result<std::unique_ptr<Handlers>> make_handlers(const Settings& settings);

}  // namespace moat::cri
