#include "cri/base/settings.h"
#include "cri/handlers/handlers.h"
#include "cri/metrics/metrics.h"
#include "runtime/sentry_runtime.h"

namespace moat::cri {

Result<std::unique_ptr<Handlers>> make_handlers(const Settings& settings) {
    auto handlers = std::make_unique<Handlers>();
    runtime::Options options;
    options.state_root = settings.state;
    options.sentry_path = settings.sentry_path;
    options.gofer_path = settings.gofer_path;
    options.strace = settings.strace;
    options.observe = [](const char* phase, double seconds) {
        metrics::sandbox_phase(phase, seconds);
    };
    options.log_level = settings.log_level == "trace" ? "debug" : settings.log_level;
    Handler& moat = handlers->add("moat", std::make_unique<runtime::SentryRuntime>(options));
    moat.features.recursive_read_only_mounts = true;
    TRY_STEP("--default-handler", handlers->set_default(settings.default_handler));
    return handlers;
}

}  // namespace moat::cri
