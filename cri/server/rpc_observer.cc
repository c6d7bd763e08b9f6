#include "cri/server/rpc_observer.h"

#include <google/protobuf/message.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/metrics/metrics.h"

namespace moat::cri {

namespace {

namespace experimental = ::grpc::experimental;

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

/// One call. gRPC's synchronous server runs the interceptors and the handler on one thread, which
/// is what the scopes rely on.
class Observer final : public experimental::Interceptor {
  public:
    explicit Observer(experimental::ServerRpcInfo* info) {
        const std::string_view path = info->method();  // "/runtime.v1.RuntimeService/Version"
        method_ = path.substr(path.rfind('/') + 1);
    }
    ~Observer() override {
        if (began_) {
            finish(::grpc::Status(::grpc::StatusCode::CANCELLED, "the client went away"));
        }
    }

    void Intercept(experimental::InterceptorBatchMethods* methods) override {
        using experimental::InterceptionHookPoints;
        if (methods->QueryInterceptionHookPoint(
                InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
            began_ = std::chrono::steady_clock::now();
            metrics::rpc_started();
            rpc_.emplace("rpc", method_);
            request_.emplace("request", next_request_id());
        }
        if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE)) {
            if (const void* message = methods->GetRecvMessage()) {
                const auto& request = *static_cast<const ::google::protobuf::Message*>(message);
                pod_ = id_field(request, "pod_sandbox_id");
                container_ = id_field(request, "container_id");
            }
        }
        if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS) &&
            began_) {
            finish(methods->GetSendStatus());
        }
        methods->Proceed();
    }

  private:
    void finish(const ::grpc::Status& status) {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - *began_).count();
        began_.reset();
        const char* code = code_name(status.error_code());
        metrics::rpc_ended();
        metrics::rpc_done(method_, code, seconds);
        log(status, code, seconds);
        request_.reset();
        rpc_.reset();
    }

    void log(const ::grpc::Status& status, const char* code, double seconds) const {
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

    std::string method_;
    std::string pod_;
    std::string container_;
    std::optional<std::chrono::steady_clock::time_point> began_;
    std::optional<LogScope> rpc_;
    std::optional<LogScope> request_;
};

class Factory final : public experimental::ServerInterceptorFactoryInterface {
  public:
    experimental::Interceptor* CreateServerInterceptor(experimental::ServerRpcInfo* info) override {
        return new Observer(info);  // gRPC deletes it
    }
};

}  // namespace

std::unique_ptr<experimental::ServerInterceptorFactoryInterface> make_rpc_observer() {
    return std::make_unique<Factory>();
}

}  // namespace moat::cri
