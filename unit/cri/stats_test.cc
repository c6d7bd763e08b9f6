#include <set>

#include "cri/containers/container_manager.h"
#include "cri/stats/cpu_rates.h"
#include "cri/stats/messages.h"
#include "unit/cri/fake_runtime.h"
#include "unit/cri/test.h"

using namespace moat::cri;
namespace api = ::runtime::v1;

namespace {

constexpr int64_t kSecond = 1'000'000'000;

Handler& fake_handler() {
    static Handler handler("moat", std::make_unique<moat::runtime::FakeRuntime>());
    return handler;
}

PodFigures some_pod() {
    PodFigures pod;
    api::PodSandboxConfig config;
    config.mutable_metadata()->set_name("web");
    config.mutable_metadata()->set_namespace_("shop");
    PodRecord record;
    record.id = "p1";
    record.name = "web";
    record.name_space = "shop";
    pod.pod = std::make_shared<Pod>(record, std::make_shared<api::PodSandboxConfig>(config),
                                    fake_handler());
    pod.record = record;
    pod.at_ns = 100 * kSecond;
    pod.stats.cpu_usage_ns = 9 * kSecond;
    pod.stats.processes = 4;
    pod.stats.cgroup = "/moat/p1";
    pod.network = NetworkFigures{};
    LinkFigures link;
    link.name = "eth0";
    link.index = 2;
    link.rx_bytes = 11;
    link.tx_errors = 3;
    pod.network->links.push_back(link);
    link.name = "net1";
    link.index = 3;
    pod.network->links.push_back(link);
    pod.network->default_link = 2;

    ContainerRecord of;
    of.id = "c1";
    of.pod_id = "p1";
    of.name = "shop-front";
    of.phase = ContainerPhase::kRunning;
    of.started_at_ns = 50 * kSecond;
    api::ContainerConfig container;
    container.mutable_metadata()->set_name("shop-front");
    container.mutable_image()->set_image("sha256:1234");
    container.mutable_image()->set_user_specified_image("busybox:1");
    ContainerFigures figures;
    figures.container = std::make_shared<Container>(
        of, std::make_shared<api::ContainerConfig>(container), *fake_handler().runtime);
    figures.record = of;
    figures.at_ns = 100 * kSecond;
    figures.nano_cores = 42;
    moat::runtime::Stats stats;
    stats.cpu_usage_ns = 7 * kSecond;
    stats.memory_limit_bytes = 1000;
    stats.memory_working_set_bytes = 300;
    stats.swap_usage_bytes = 0;
    stats.writable_layer_bytes = 4096;
    stats.cpu_pressure = moat::cgroups::Pressure{{1.5, 1, 0.5, 2'000'000}, std::nullopt};
    stats.io.push_back({7, 250, 1, 2, 3, 4});
    stats.open_files_limit = 1024;
    figures.stats = stats;
    pod.containers.push_back(figures);
    return pod;
}

}  // namespace

TEST_CASE("cpu rates: since the start at first, then between figures that are far enough apart") {
    CpuRates rates;
    // 10 s old, 5 s of CPU time.
    CHECK(rates.note("a", 10 * kSecond, 5 * kSecond, 1) == 500'000'000);
    // Another client a moment later takes the same window, not one of a millisecond.
    CHECK(*rates.note("a", 10 * kSecond + 1'000'000, 5 * kSecond, 1) < 500'000'001);
    // Two seconds later, three more seconds of CPU time.
    CHECK(rates.note("a", 12 * kSecond, 8 * kSecond, 1) == 1'500'000'000);
    CHECK(rates.note("a", 14 * kSecond, 8 * kSecond, 1) == 0);
}

TEST_CASE("cpu rates: nothing is said of what is not known") {
    CpuRates rates;
    // Hours old at first sight: its average would say nothing about now.
    CHECK_FALSE(rates.note("a", 90'000 * kSecond, 5 * kSecond, kSecond).has_value());
    CHECK_FALSE(rates.note("a", 90'000 * kSecond + 1000, 6 * kSecond, kSecond).has_value());
    CHECK(rates.note("a", 90'001 * kSecond, 6 * kSecond, kSecond) == kSecond);
    // The use went back: another object under the name.
    CHECK_FALSE(rates.note("a", 90'002 * kSecond, 1, kSecond).has_value());
    CHECK_FALSE(rates.note("b", 10, 5, 0).has_value());
    rates.keep({"b"});
    CHECK_FALSE(rates.note("a", 90'010 * kSecond, kSecond, kSecond).has_value());
}

TEST_CASE("statistics: what is not known is left out, not zero") {
    const PodFigures pod = some_pod();
    FilesystemFigures fs;
    fs.mountpoint = "/lib/containers";
    api::ContainerStats out;
    fill(out, pod.containers[0], fs);
    CHECK(out.attributes().id() == "c1");
    CHECK(out.cpu().usage_core_nano_seconds().value() == 7 * kSecond);
    CHECK(out.cpu().usage_nano_cores().value() == 42);
    CHECK(out.cpu().psi().some().total() == 2 * kSecond);
    CHECK_FALSE(out.cpu().psi().has_full());
    CHECK(out.memory().available_bytes().value() == 700);
    CHECK_FALSE(out.memory().has_psi());
    CHECK_FALSE(out.has_io());
    CHECK(out.has_swap());
    CHECK_FALSE(out.swap().has_swap_available_bytes());
    CHECK(out.writable_layer().fs_id().mountpoint() == "/lib/containers");
    CHECK(out.writable_layer().used_bytes().value() == 4096);

    ContainerFigures ended = pod.containers[0];
    ended.stats.reset();
    api::ContainerStats after;
    fill(after, ended, fs);
    CHECK_FALSE(after.has_cpu());
    CHECK_FALSE(after.has_memory());
    CHECK(after.has_writable_layer());

    api::PodSandboxStats whole;
    fill(whole, pod, fs);
    CHECK(whole.linux().network().default_interface().name() == "eth0");
    CHECK(whole.linux().network().default_interface().rx_bytes().value() == 11);
    CHECK(whole.linux().network().default_interface().tx_errors().value() == 3);
    REQUIRE(whole.linux().network().interfaces_size() == 1);
    CHECK(whole.linux().network().interfaces(0).name() == "net1");
    CHECK(whole.linux().process().process_count().value() == 4);
    REQUIRE(whole.linux().containers_size() == 1);
    CHECK_FALSE(whole.linux().cpu().has_usage_nano_cores());
}

TEST_CASE("metrics: each value is described, with as many labels as its description has") {
    api::ListMetricDescriptorsResponse descriptors;
    fill(descriptors);
    CHECK(descriptors.descriptors_size() == 56);
    std::map<std::string, const api::MetricDescriptor*> known;
    for (const auto& descriptor : descriptors.descriptors()) {
        CHECK_FALSE(descriptor.help().empty());
        CHECK(known.insert({descriptor.name(), &descriptor}).second);
    }
    api::PodSandboxMetrics out;
    fill(out, some_pod(), FilesystemFigures{});
    REQUIRE(out.container_metrics_size() == 1);
    std::set<std::string> seen;
    const auto check = [&](const api::Metric& metric) {
        CAPTURE(metric.name());
        REQUIRE(known.contains(metric.name()));
        CHECK(known[metric.name()]->label_keys_size() == metric.label_values_size());
        CHECK(metric.timestamp() == 0);
        seen.insert(metric.name());
    };
    for (const auto& metric : out.metrics()) {
        check(metric);
    }
    for (const auto& metric : out.container_metrics(0).metrics()) {
        check(metric);
        CHECK(metric.label_values(0) == "shop-front");
        CHECK(metric.label_values(2) == "busybox:1");
        CHECK(metric.label_values(3) == "c1");
        CHECK(metric.label_values(4) == "shop");
        CHECK(metric.label_values(5) == "web");
        if (metric.name() == "container_cpu_usage_seconds_total") {
            CHECK(metric.value().value() == 7);
            CHECK(metric.metric_type() == api::COUNTER);
        }
        if (metric.name() == "container_fs_writes_total") {
            CHECK(metric.label_values(6) == "7:250");  // no such device on the node
            CHECK(metric.value().value() == 4);
        }
    }
    CHECK(seen.contains("container_network_receive_bytes_total"));
    CHECK(seen.contains("container_pressure_cpu_waiting_seconds_total"));
    CHECK_FALSE(seen.contains("container_pressure_cpu_stalled_seconds_total"));
    CHECK_FALSE(seen.contains("container_hugetlb_usage_bytes"));
}
