#include "cri/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "kernel/base/version.h"

namespace moat::cri::metrics {

namespace {

using prometheus::Histogram;
using prometheus::Labels;

/// The table of system calls has fewer names than this; a sentry that is taken over has not.
constexpr size_t kMaxNames = 400;
constexpr size_t kMaxNameLength = 64;

const Histogram::BucketBoundaries kSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                              0.5,   1,      2.5,   5,    10,    30,   60,  120};

template <typename T>
auto& family(prometheus::Registry& registry, const char* name, const char* help) {
    if constexpr (std::is_same_v<T, prometheus::Counter>) {
        return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
    } else if constexpr (std::is_same_v<T, prometheus::Gauge>) {
        return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
    } else {
        return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
    }
}

struct Families {
    prometheus::Registry registry;

#define MOAT_FAMILY(Type, member, name, help)      \
    prometheus::Family<prometheus::Type>& member = \
        family<prometheus::Type>(registry, "moat_" name, help)
    MOAT_FAMILY(Gauge, build, "build_info", "Always 1; the label says which moatd this is.");
    MOAT_FAMILY(Histogram, rpc, "rpc_duration_seconds", "CRI calls by method.");
    MOAT_FAMILY(Counter, rpc_results, "rpc_results_total", "CRI calls by method and gRPC code.");
    MOAT_FAMILY(Gauge, rpc_running, "rpc_running", "CRI calls that are being served.");
    MOAT_FAMILY(Counter, pulls, "image_pulls_total", "Pulls by result.");
    MOAT_FAMILY(Histogram, pull, "image_pull_duration_seconds", "Pulls that succeeded.");
    MOAT_FAMILY(Counter, pull_bytes, "image_pull_bytes_total", "Bytes of layers from registries.");
    MOAT_FAMILY(Histogram, phases, "sandbox_start_phase_seconds",
                "The steps of making a pod; first_container is the start of its first one.");
    MOAT_FAMILY(Histogram, cni, "cni_call_duration_seconds", "Calls of CNI plugins by verb.");
    MOAT_FAMILY(Counter, cni_results, "cni_calls_total",
                "Calls of CNI plugins by verb and result.");
    MOAT_FAMILY(Counter, recoveries, "recovered_total",
                "What moatd found at its start and settled, by kind.");
    MOAT_FAMILY(Counter, reloads, "config_reloads_total", "SIGHUPs by result.");
    MOAT_FAMILY(Gauge, objects, "objects", "Pods and containers by state and handler.");
    MOAT_FAMILY(Counter, unsupported, "sentry_unsupported_calls_total",
                "What guests asked for and the sentry does not do, by call.");
    MOAT_FAMILY(Gauge, sentries, "sentries", "Sentries that answered the last scrape.");
    MOAT_FAMILY(Gauge, sentry_memory, "sentry_memory_bytes", "Resident memory of all of them.");
    MOAT_FAMILY(Gauge, sentry_threads, "sentry_threads", "Threads of all of them.");
#undef MOAT_FAMILY

    Families() {
        build.Add({{"version", kVersion}}).Set(1);
        rpc.Add({{"method", "Version"}}, kSeconds);
        rpc_results.Add({{"method", "Version"}, {"code", "OK"}});
        rpc_running.Add({});
        for (const char* result : {"ok", "error"}) {
            pulls.Add({{"result", result}});
            reloads.Add({{"result", result}});
        }
        pull.Add({}, kSeconds);
        pull_bytes.Add({});
        for (const char* phase : {"network", "cgroup", "sentry", "gofer", "first_container"}) {
            phases.Add({{"phase", phase}}, kSeconds);
        }
        cni.Add({{"verb", "ADD"}}, kSeconds);
        cni_results.Add({{"verb", "ADD"}, {"result", "ok"}});
        recoveries.Add({{"what", "pod_found_again"}});
        objects.Add({{"kind", "pods"}, {"state", "ready"}, {"handler", "moat"}});
        unsupported.Add({{"call", "other"}});
        sentries.Add({});
        sentry_memory.Add({});
        sentry_threads.Add({});
    }
};

Families& all() {
    static Families families;
    return families;
}

struct SentryState {
    std::mutex mu;
    std::map<std::string, std::map<std::string, uint64_t>> last;  ///< by pod, by call
    std::set<std::string> names;
    std::set<Labels> objects;
};

SentryState& sentry_state() {
    static SentryState state;
    return state;
}

/// A sentry may say anything: only names that look like one, and not more than there are.
std::string bounded_name(const std::string& name, std::set<std::string>& known) {
    const bool plain =
        !name.empty() && name.size() <= kMaxNameLength &&
        std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c < 0x7f; });
    if (!plain || (known.size() >= kMaxNames && !known.contains(name))) {
        return "other";
    }
    known.insert(name);
    return name;
}

}  // namespace

void rpc_done(std::string_view method, std::string_view code, double seconds) {
    all().rpc.Add({{"method", std::string(method)}}, kSeconds).Observe(seconds);
    all()
        .rpc_results.Add({{"method", std::string(method)}, {"code", std::string(code)}})
        .Increment();
}
void rpc_started() { all().rpc_running.Add({}).Increment(); }
void rpc_ended() { all().rpc_running.Add({}).Decrement(); }

void image_pulled(bool ok, double seconds) {
    all().pulls.Add({{"result", ok ? "ok" : "error"}}).Increment();
    if (ok) {
        all().pull.Add({}, kSeconds).Observe(seconds);
    }
}
void image_bytes(uint64_t bytes) { all().pull_bytes.Add({}).Increment(static_cast<double>(bytes)); }

void sandbox_phase(std::string_view phase, double seconds) {
    all().phases.Add({{"phase", std::string(phase)}}, kSeconds).Observe(seconds);
}
void cni_call(std::string_view verb, bool ok, double seconds) {
    all().cni.Add({{"verb", std::string(verb)}}, kSeconds).Observe(seconds);
    all()
        .cni_results.Add({{"verb", std::string(verb)}, {"result", ok ? "ok" : "error"}})
        .Increment();
}
void recovered(std::string_view what) {
    all().recoveries.Add({{"what", std::string(what)}}).Increment();
}
void config_reloaded(bool ok) { all().reloads.Add({{"result", ok ? "ok" : "error"}}).Increment(); }

void sentries_sampled(const std::vector<SentrySample>& samples,
                      const std::vector<std::string>& alive) {
    SentryState& state = sentry_state();
    const std::lock_guard lock(state.mu);
    uint64_t memory = 0;
    uint64_t threads = 0;
    for (const SentrySample& sample : samples) {
        memory += sample.memory_bytes;
        threads += sample.threads;
        std::map<std::string, uint64_t> now;
        for (const auto& [call, count] : sample.unsupported) {
            now[bounded_name(call, state.names)] += count;
        }
        auto& last = state.last[sample.pod_id];
        for (const auto& [call, count] : now) {
            if (count > last[call]) {
                all()
                    .unsupported.Add({{"call", call}})
                    .Increment(static_cast<double>(count - last[call]));
            }
        }
        last = std::move(now);
    }
    const std::set<std::string> living(alive.begin(), alive.end());
    std::erase_if(state.last, [&](const auto& entry) { return !living.contains(entry.first); });
    all().sentries.Add({}).Set(static_cast<double>(samples.size()));
    all().sentry_memory.Add({}).Set(static_cast<double>(memory));
    all().sentry_threads.Add({}).Set(static_cast<double>(threads));
}

void objects_counted(const std::vector<ObjectCount>& counts) {
    SentryState& state = sentry_state();
    const std::lock_guard lock(state.mu);
    for (const Labels& labels : state.objects) {
        all().objects.Add(labels).Set(0);
    }
    for (const ObjectCount& object : counts) {
        const Labels labels = {
            {"kind", object.kind}, {"state", object.state}, {"handler", object.handler}};
        state.objects.insert(labels);
        all().objects.Add(labels).Set(static_cast<double>(object.count));
    }
}

std::string expose() { return prometheus::TextSerializer().Serialize(all().registry.Collect()); }

}  // namespace moat::cri::metrics
