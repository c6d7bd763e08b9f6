#include "cri/base/settings.h"
#include "cri/handlers/handlers.h"
#include "cri/metrics/metrics.h"
#include "runtime/native/native_runtime.h"
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
    moat.features.user_namespaces = true;

    runtime::NativeRuntime::Options native;
    native.state_root = settings.native_directory();
    native.monitor_path = settings.monitor_path;
    native.pause_path = settings.pause_path;
    const auto program = runtime::NativeRuntime::find_program(settings.native_runtime);
    native.program = program.ok() ? *program : settings.native_runtime;
    Handler& handler =
        handlers->add("native", std::make_unique<runtime::NativeRuntime>(std::move(native)));
    handler.kernel = Kernel::kNode;
    handler.features.user_namespaces =
        program.ok() && runtime::NativeRuntime::has_id_mapped_mounts(*program);
    handler.features.recursive_read_only_mounts = true;
    if (!program.ok()) {
        handler.unavailable = program.error().message();
    }
    TRY_STEP("--default-handler", handlers->set_default(settings.default_handler));
    return handlers;
}

}  // namespace moat::cri
