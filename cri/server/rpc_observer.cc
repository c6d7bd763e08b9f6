#include "cri/server/rpc_observer.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>

#include "cri/base/files.h"
#include "cri/metrics/metrics.h"

namespace moat::cri {

namespace {

const std::set<std::string_view> kReads = {
    "Version",     "Status",        "PodSandboxStatus",   "ContainerStatus", "ImageStatus",
    "ImageFsInfo", "RuntimeConfig", "GetContainerEvents", "ContainerStats",  "PodSandboxStats"};

bool only_reads(std::string_view method) {
    return method.starts_with("List") || method.starts_with("Stream") || kReads.contains(method);
}

const char* code_name(::grpc::StatusCode code) {
    static constexpr const char* kNames[] = {"OK",
                                             "CANCELLED",
                                             "UNKNOWN",
                                             "INVALID_ARGUMENT",
                                             "DEADLINE_EXCEEDED",
                                             "NOT_FOUND",
                                             "ALREADY_EXISTS",
                                             "PERMISSION_DENIED",
                                             "RESOURCE_EXHAUSTED",
                                             "FAILED_PRECONDITION",
                                             "ABORTED",
                                             "OUT_OF_RANGE",
                                             "UNIMPLEMENTED",
                                             "INTERNAL",
                                             "UNAVAILABLE",
                                             "DATA_LOSS",
                                             "UNAUTHENTICATED"};
    const auto index = static_cast<size_t>(code);
    return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

/// A client may repeat a call as fast as it likes; each method has a bucket of its own.
LogLimit& limit_of(const std::string& method) {
    static std::mutex mu;
    static std::map<std::string, LogLimit> limits;
    const std::lock_guard lock(mu);
    return limits.try_emplace(method, 200, 20).first->second;
}

/// Unique among the calls of all moatds of a node, short enough to be typed.
std::string next_request_id() {
    static const std::string start = random_id().substr(0, 8);
    static std::atomic<uint64_t> count = 0;
    return start + "-" + std::to_string(++count);
}

std::string id_field(const ::google::protobuf::Message& request, const char* name) {
    const auto* field = request.GetDescriptor()->FindFieldByName(name);
    if (field == nullptr || field->is_repeated() ||
        field->cpp_type() != ::google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
        return "";
    }
    // What a client sends may be as long as a message.
    return request.GetReflection()->GetString(request, field).substr(0, 64);
}

}  // namespace

RpcObserver::RpcObserver(const std::string& method)
    : method_(method), rpc_("rpc", method), request_("request", next_request_id()) {
    metrics::rpc_started();
}

RpcObserver::~RpcObserver() { metrics::rpc_ended(); }

void RpcObserver::received(const google::protobuf::Message& request) {
    pod_ = id_field(request, "pod_sandbox_id");
    container_ = id_field(request, "container_id");
}

void RpcObserver::finish(const ::grpc::Status& status) {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    const char* code = code_name(status.error_code());
    metrics::rpc_done(method_, code, seconds);
    log(status, code, seconds);
}

void RpcObserver::log(const ::grpc::Status& status, const char* code, double seconds) const {
    const auto level = only_reads(method_) ? spdlog::level::debug : spdlog::level::info;
    if (!spdlog::should_log(level)) {
        return;
    }
    const LogLimit::Verdict verdict = limit_of(method_).admit();
    if (!verdict.admitted) {
        return;
    }
    std::optional<LogScope> pod;
    std::optional<LogScope> container;
    std::optional<LogScope> suppressed;
    std::optional<LogScope> error;
    if (!pod_.empty()) {
        pod.emplace("pod", pod_);
    }
    if (!container_.empty()) {
        container.emplace("container", container_);
    }
    if (verdict.suppressed != 0) {
        suppressed.emplace("suppressed", std::to_string(verdict.suppressed));
    }
    if (!status.ok()) {
        error.emplace("error", status.error_message().substr(0, 2000));
    }
    char duration[32];
    snprintf(duration, sizeof(duration), "%.6f", seconds);
    log_event(level, "rpc", {{"code", code}, {"seconds", duration}});
}

}  // namespace moat::cri
