#include "cri/server/metrics_server.h"

#include <httplib.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <map>
#include <thread>

#include "cri/handlers/handlers.h"
#include "cri/metrics/metrics.h"
#include "cri/server/node.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

/// Of one scrape: sentries that are not asked by then are the next one's, in turn.
constexpr std::chrono::milliseconds kScrapeBudget{1000};

const char* state_name(PodState state) {
    static constexpr const char* kNames[] = {"creating", "ready",    "stopping",
                                             "stopped",  "removing", "died"};
    return kNames[static_cast<size_t>(state)];
}

const char* state_name(ContainerPhase phase) {
    switch (phase) {
        case ContainerPhase::kCreated:
            return "created";
        case ContainerPhase::kRunning:
            return "running";
        case ContainerPhase::kExited:
            return "exited";
        default:
            return "changing";
    }
}

/// Counts what there is and asks the sentries of ready pods, beginning behind the one asked last.
class Scraper {
  public:
    explicit Scraper(Node& node) : node_(node) {}

    std::string scrape() {
        const std::lock_guard lock(mu_);
        std::map<std::tuple<std::string, std::string, std::string>, uint64_t> counts;
        std::map<std::string, std::string> handlers;
        std::map<std::string, PodPtr> ready;
        std::vector<std::string> alive;
        for (const PodPtr& pod : node_.pods->list()) {
            const PodRecord record = pod->snapshot();
            ++counts[{"pods", state_name(record.state), record.runtime}];
            handlers[record.id] = record.runtime;
            alive.push_back(record.id);
            if (record.state == PodState::kReady) {
                ready[record.id] = pod;
            }
        }
        for (const ContainerPtr& container : node_.containers->list()) {
            ++counts[{"containers", state_name(container->snapshot().phase),
                      handlers[container->pod_id]}];
        }
        std::vector<metrics::ObjectCount> objects;
        for (const auto& [key, count] : counts) {
            objects.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), count});
        }
        metrics::objects_counted(objects);
        metrics::sentries_sampled(ask(ready), alive);
        const uint64_t bytes = node_.puller->metrics().bytes_downloaded;
        metrics::image_bytes(bytes - std::exchange(pulled_bytes_, bytes));
        return metrics::expose();
    }

  private:
    std::vector<metrics::SentrySample> ask(const std::map<std::string, PodPtr>& ready) {
        std::vector<metrics::SentrySample> samples;
        const auto deadline = std::chrono::steady_clock::now() + kScrapeBudget;
        auto next = ready.upper_bound(last_asked_);
        for (size_t i = 0; i < ready.size() && std::chrono::steady_clock::now() < deadline; ++i) {
            if (next == ready.end()) {
                next = ready.begin();
            }
            last_asked_ = next->first;
            // A pod that is just being taken down, and one without a sentry, have none.
            if (const auto counters = next->second->runtime().sandbox_counters(next->first);
                counters.ok()) {
                samples.push_back({next->first, counters->unsupported, counters->memory_bytes,
                                   counters->threads});
            }
            ++next;
        }
        return samples;
    }

    Node& node_;
    std::mutex mu_;
    std::string last_asked_;
    uint64_t pulled_bytes_ = 0;
};

}  // namespace

struct MetricsServer::Impl {
    explicit Impl(Node& node) : scraper(node) {}
    Scraper scraper;
    httplib::Server server;
    std::thread thread;
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl, std::string address)
    : impl_(std::move(impl)), address_(std::move(address)) {}

MetricsServer::~MetricsServer() {
    impl_->server.stop();
    impl_->thread.join();
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::listen(const std::string& address, Node& node,
                                                             std::function<bool()> answers) {
    const size_t colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    int port = -1;
    if (colon != std::string::npos) {
        std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    }
    if (host.empty() || port < 0 || port > 65535) {
        return invalid_argument("metrics.address: \"" + address + "\": not HOST:PORT");
    }
    auto impl = std::make_unique<Impl>(node);
    httplib::Server& server = impl->server;
    // Whoever may connect, and be it a thousand, gets two threads and no more of us.
    server.new_task_queue = [] { return new httplib::ThreadPool(2); };
    server.set_payload_max_length(1024);
    server.set_read_timeout(5);
    server.set_write_timeout(5);
    server.set_keep_alive_max_count(100);
    Impl* raw = impl.get();
    server.Get("/metrics", [raw](const httplib::Request&, httplib::Response& response) {
        response.set_content(raw->scraper.scrape(), "text/plain; version=0.0.4; charset=utf-8");
    });
    const auto answer = [](httplib::Response& response, const std::string& trouble) {
        response.status = trouble.empty() ? 200 : 503;
        response.set_content(trouble.empty() ? "ok\n" : trouble + "\n", "text/plain");
    };
    const auto health = [answers = std::move(answers)] {
        return answers() ? std::string() : "moatd does not answer on its own socket";
    };
    server.Get("/healthz", [=](const httplib::Request&, httplib::Response& response) {
        answer(response, health());
    });
    server.Get("/readyz", [=, &node](const httplib::Request&, httplib::Response& response) {
        std::string trouble = health();
        if (trouble.empty()) {
            const Status ready = node.networks->ready();
            trouble = ready.ok() ? "" : "network: " + ready.error().message();
        }
        answer(response, trouble);
    });
    const bool bound = port == 0 ? (port = server.bind_to_any_port(host.c_str())) > 0
                                 : server.bind_to_port(host.c_str(), port);
    if (!bound) {
        return Error(EADDRINUSE, "metrics.address: cannot listen on " + address);
    }
    impl->thread = std::thread([raw] { raw->server.listen_after_bind(); });
    return std::unique_ptr<MetricsServer>(
        new MetricsServer(std::move(impl), address.substr(0, colon) + ":" + std::to_string(port)));
}

}  // namespace moat::cri
