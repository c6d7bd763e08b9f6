#include "cri/server/server.h"

#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "api.grpc.pb.h"
#include "cri/metrics/metrics.h"
#include "cri/server/listener.h"
#include "cri/server/methods.h"
#include "cri/server/metrics_server.h"
#include "cri/server/node.h"
#include "cri/server/service_manager.h"
#include "kernel/base/cleanup.h"

namespace moat::cri {

namespace {

/// As containerd: no request is nearly as long.
constexpr int kMaxRequest = 16 << 20;
/// Two streams of ExecSync at their limit, and room for the rest of the message.
constexpr int kMaxResponse = 2 * static_cast<int>(kExecOutputLimit) + (1 << 20);
/// A stop waits for its guest: a node's worth of them must fit.
constexpr size_t kMaxThreads = 2048;
constexpr int kMaxStreams = 1024;
constexpr int kKeepaliveMs = 120'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
/// A self-check that takes longer is a no.
constexpr std::chrono::seconds kAnswerTime{5};
/// For handlers that do not end although their client has been told that they were cancelled.
constexpr std::chrono::seconds kLastPatience{2};

/// SIGHUP: what can change takes effect; a file that cannot be read changes nothing.
void reload(Node& node, const ConfigSource& source) {
    const auto changed = load_settings(source);
    if (!changed.ok()) {
        spdlog::error("configuration not reloaded, the old one stays: {}",
                      changed.error().message());
        metrics::config_reloaded(false);
        return;
    }
    node.apply(*changed);
    metrics::config_reloaded(true);
}

/// A deadline that no change of the wall clock moves.
gpr_timespec monotonic_in(std::chrono::seconds time) {
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_seconds(time.count(), GPR_TIMESPAN));
}

/// Whether a CRI call is answered, asked in the way of every client.
class SelfCheck {
  public:
    explicit SelfCheck(const std::string& path)
        : stub_(api::RuntimeService::NewStub(
              ::grpc::CreateChannel("unix:" + path, ::grpc::InsecureChannelCredentials()))) {}
    bool answers() {
        ::grpc::ClientContext context;
        context.set_deadline(monotonic_in(kAnswerTime));
        api::VersionResponse response;
        return stub_->Version(&context, api::VersionRequest(), &response).ok();
    }

  private:
    std::unique_ptr<api::RuntimeService::Stub> stub_;
};

/// Waits for a signal of `signals` that is not SIGHUP.
int wait_for_end(Node& node, const ConfigSource& source, const ServiceManager& service,
                 const sigset_t& signals) {
    for (;;) {
        int signal = 0;
        if (sigwait(&signals, &signal) == 0 && signal != SIGHUP) {
            return signal;
        }
        service.reloading();
        reload(node, source);
        service.notify("READY=1\nSTATUS=Serving the CRI");
    }
}

/// No new calls; those in progress get `grace`, then their clients are told that they were
/// cancelled. A second signal, or handlers that do not return, end the process at once: what is
/// half done is settled by the next start, as after a kill.
void shut_down(RpcServer& server, std::chrono::seconds grace) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR2);
    std::thread ending([&] {
        server.shut_down(monotonic_in(grace));
        kill(getpid(), SIGUSR2);
    });
    const timespec limit{(grace + kLastPatience).count(), 0};
    const int signal = sigtimedwait(&signals, nullptr, &limit);
    if (signal != SIGUSR2) {
        spdlog::warn("moatd ends at once, calls are cut short: {}",
                     signal < 0 ? "they did not end in time" : "a second signal");
        spdlog::default_logger()->flush();
        _exit(0);
    }
    ending.join();
}

}  // namespace

Status serve(const Settings& settings, const ConfigSource& source) {
    constexpr std::string_view kScheme = "unix://";
    std::string path = settings.socket;
    if (path.rfind(kScheme, 0) == 0) {
        path.erase(0, kScheme.size());
    }
    if (path.empty() || path.front() != '/') {
        return invalid_argument("--socket " + settings.socket +
                                ": not unix:// and an absolute path");
    }
    ServiceManager service;
    service.notify("STATUS=Looking for the pods of the last moatd");
    const auto node = TRY(Node::open(settings, TRY(make_handlers(settings))));
    TRY(make_directories(path.substr(0, std::max<size_t>(path.rfind('/'), 1)), 0711));
    const auto listener = TRY(Listener::open(path));
    CheckedRuntimeService runtime_service(*node);
    CheckedImageService image_service(*node);
    RpcServer server(kMaxThreads);
    add_methods(server, runtime_service, image_service);
    ::grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMaxRequest);
    builder.SetMaxSendMessageSize(kMaxResponse);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
    // Clients are on this machine: how much fits into the connection is not measured with pings.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    // Clients may ask whether the connection lives, as often as kubelet does and not much more.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    // A peer that is gone without a word, or never was one, is noticed: nobody times the handshake
    // of connections that we accept ourselves.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    ::grpc::Server* const connections = server.open(builder);
    if (connections == nullptr) {
        return internal_error("--socket " + path + ": cannot serve on it");
    }
    listener->serve(*connections);
    const Cleanup stop([&listener] { listener->stop(); });
    SelfCheck self(path);
    const auto answers = [&self] { return self.answers(); };
    std::unique_ptr<MetricsServer> metrics_server;
    if (!settings.metrics_address.empty()) {
        metrics_server = TRY(MetricsServer::listen(settings.metrics_address, *node, answers));
        spdlog::info("metrics are at http://{}/metrics", metrics_server->address());
    }
    spdlog::info("moatd serves the CRI on {}", path);
    service.notify("READY=1\nSTATUS=Serving the CRI");
    service.watch(answers);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    const int signal = wait_for_end(*node, source, service, signals);
    service.notify("STOPPING=1\nSTATUS=Waiting for calls in progress; pods run on");
    spdlog::info("signal {}: moatd ends, its pods run on", signal);
    listener->stop();
    node->events.close();
    shut_down(server, std::chrono::seconds(settings.shutdown_grace_s));
    return {};
}

}  // namespace moat::cri
