#include "cri/streaming/streaming_server.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "cri/base/settings.h"
#include "cri/containers/container_manager.h"
#include "cri/pods/pod_manager.h"
#include "cri/streaming/port_forward.h"
#include "cri/streaming/remote_command.h"

namespace moat::cri::streaming {

namespace {

template <typename R>
Status check_streams(const R& request) {
    if (request.container_id.empty()) {
        return invalid_argument("missing required container_id");
    }
    if (request.tty && request.err) {
        return invalid_argument("tty and stderr cannot both be true");
    }
    if (!request.in && !request.out && !request.err) {
        return invalid_argument("one of stdin, stdout, or stderr must be set");
    }
    return {};
}

Result<std::string> running(ContainerManager& containers, const std::string& id, const char* what) {
    const ContainerPtr container = TRY(containers.find(id));
    if (container->snapshot().phase != ContainerPhase::kRunning) {
        return wrong_state("container " + container->id + ": " + what + ": it is not running");
    }
    return container->id;
}

}  // namespace

StreamingServer::StreamingServer(const Settings& settings, ContainerManager& containers,
                                 PodManager& pods)
    : settings_(settings),
      containers_(containers),
      pods_(pods),
      http_(tokens_, [this](Client client, std::function<void()> finished) {
          serve(std::move(client), std::move(finished));
      }) {}

StreamingServer::~StreamingServer() { stop(); }

Status StreamingServer::start() {
    TRY(http_.start({settings_.stream_address, static_cast<uint16_t>(settings_.stream_port),
                     settings_.stream_tls_cert, settings_.stream_tls_key}));
    spdlog::info("exec, attach and port-forward are served on {}", http_.base_url());
    return {};
}

void StreamingServer::stop() { http_.stop(); }

Result<std::string> StreamingServer::url(const char* endpoint, Request request) {
    return http_.base_url() + endpoint + TRY(tokens_.add(std::move(request)));
}

Result<std::string> StreamingServer::exec(ExecRequest request) {
    TRY(check_streams(request));
    if (request.command.empty()) {
        return invalid_argument("cmd: empty");
    }
    request.container_id = TRY(running(containers_, request.container_id, "exec"));
    return url("/exec/", std::move(request));
}

Result<std::string> StreamingServer::attach(AttachRequest request) {
    TRY(check_streams(request));
    request.container_id = TRY(running(containers_, request.container_id, "attach"));
    return url("/attach/", std::move(request));
}

Result<std::string> StreamingServer::port_forward(PortForwardRequest request) {
    if (request.pod_id.empty()) {
        return invalid_argument("missing required pod_sandbox_id");
    }
    if (std::any_of(request.ports.begin(), request.ports.end(),
                    [](int32_t port) { return port < 1 || port > 65535; })) {
        return invalid_argument("port: not between 1 and 65535");
    }
    const PodPtr pod = TRY(pods_.find(request.pod_id));
    if (pod->snapshot().state != PodState::kReady) {
        return wrong_state("pod " + pod->id + ": port-forward: the pod is not ready");
    }
    request.pod_id = pod->id;
    return url("/portforward/", std::move(request));
}

void StreamingServer::serve(Client client, std::function<void()> finished) {
    if (auto* exec = std::get_if<ExecRequest>(&client.request)) {
        open_remote_streams(
            client, exec->tty, exec->in, exec->out, exec->err,
            [this, &io = client.io, exec = *exec, finished](RemoteStreams streams) {
                run_exec(io, containers_, exec, std::move(streams), finished);
            },
            finished);
        return;
    }
    if (auto* attach = std::get_if<AttachRequest>(&client.request)) {
        open_remote_streams(
            client, attach->tty, attach->in, attach->out, attach->err,
            [this, &io = client.io, attach = *attach, finished](RemoteStreams streams) {
                run_attach(io, containers_, attach, std::move(streams), finished);
            },
            finished);
        return;
    }
    const auto& forward = std::get<PortForwardRequest>(client.request);
    const auto pod = pods_.find(forward.pod_id);
    if (!pod.ok()) {
        spdlog::info("pod {}: port-forward: it is gone", forward.pod_id);
        finished();
        return;
    }
    const std::string id = forward.pod_id;
    auto ports = forward.ports;
    run_port_forward(std::move(client), id, pods_.network_namespace((*pod)->snapshot()),
                     std::move(ports), std::move(finished));
}

}  // namespace moat::cri::streaming
