#include "cri/server/server.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>

#include "cri/server/image_service.h"
#include "cri/server/node.h"
#include "cri/server/runtime_service.h"

namespace moat::cri {

namespace {

/// Two streams of ExecSync at their limit, and room for the rest of the message.
constexpr int kMaxMessage = 2 * static_cast<int>(kExecOutputLimit) + (1 << 20);
/// What calls in progress get to end once moatd has been told to.
constexpr std::chrono::seconds kShutdownPatience{2};

/// Removes a socket that nobody listens on, which a killed moatd has left: gRPC would not bind to
/// it.
Status clear_socket(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        return invalid_argument("--socket " + path + ": longer than " +
                                std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    }
    path.copy(address.sun_path, path.size());
    const ScopedFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
        return wrong_state("--socket " + path + ": somebody listens on it");
    }
    if (errno == ECONNREFUSED && unlink(path.c_str()) != 0) {
        return Error::from_errno(errno, "remove the socket " + path);
    }
    return {};
}

/// SIGHUP: what can change takes effect; a file that cannot be read changes nothing.
void reload(Node& node, const ConfigSource& source) {
    const auto changed = load_settings(source);
    if (!changed.ok()) {
        spdlog::error("configuration not reloaded, the old one stays: {}",
                      changed.error().message());
        return;
    }
    node.apply(*changed);
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
    const auto node = TRY(Node::open(settings, TRY(make_handlers(settings))));
    TRY(make_directories(path.substr(0, std::max<size_t>(path.rfind('/'), 1)), 0711));
    TRY(clear_socket(path));
    RuntimeService runtime_service(*node);
    ImageService image_service(*node);
    ::grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("unix:" + path, ::grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&runtime_service);
    builder.RegisterService(&image_service);
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    builder.SetMaxSendMessageSize(kMaxMessage);
    // Whoever may connect is root of the node in all but name. The umask closes the moment between
    // bind and chmod.
    const mode_t before = umask(0177);
    const std::unique_ptr<::grpc::Server> server = builder.BuildAndStart();
    umask(before);
    if (server == nullptr) {
        return internal_error("--socket " + path + ": cannot listen on it");
    }
    spdlog::info("moatd serves the CRI on {}", path);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    int signal = 0;
    while (sigwait(&signals, &signal) != 0 || signal == SIGHUP) {
        reload(*node, source);
    }
    spdlog::info("signal {}: moatd ends, its pods run on", signal);
    node->events.close();
    server->Shutdown(std::chrono::system_clock::now() + kShutdownPatience);
    server->Wait();
    return {};
}

}  // namespace moat::cri
