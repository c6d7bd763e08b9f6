#include <thread>

#include "api.pb.h"
#include "cri/containers/resources.h"
#include "cri/events/container_events.h"
#include "unit/cri/test.h"

using namespace moat::cri;
namespace api = ::runtime::v1;
using std::chrono::milliseconds;

TEST_CASE("events: each subscriber gets all of them in their order, described at that moment") {
    ContainerEvents events;
    int described = 0;
    events.set_describe([&](const std::string& pod_id, api::ContainerEventResponse& event) {
        event.mutable_pod_sandbox_status()->set_id(pod_id);
        event.mutable_pod_sandbox_status()->set_created_at(++described);
    });
    events.publish("p", "before", ContainerEvent::kCreated);
    CHECK(described == 0);  // nobody listens: nothing is put together
    const auto first = events.subscribe();
    const auto second = events.subscribe();
    REQUIRE(first.ok());
    REQUIRE(second.ok());
    events.publish("p", "c", ContainerEvent::kCreated);
    events.publish("p", "c", ContainerEvent::kStopped);
    for (const auto* subscription : {&first, &second}) {
        for (const auto type : {api::CONTAINER_CREATED_EVENT, api::CONTAINER_STOPPED_EVENT}) {
            const auto event = (**subscription)->next(milliseconds(0));
            REQUIRE(event.ok());
            REQUIRE(*event != nullptr);
            CHECK((*event)->container_event_type() == type);
            CHECK((*event)->container_id() == "c");
            CHECK((*event)->pod_sandbox_status().id() == "p");
            CHECK((*event)->created_at() > 0);
        }
        const auto none = (**subscription)->next(milliseconds(0));
        REQUIRE(none.ok());
        CHECK(*none == nullptr);
    }
    CHECK(described == 2);
}

TEST_CASE("events: a subscriber that does not keep up loses its stream, and no other does") {
    ContainerEvents events;
    const auto stuck = events.subscribe();
    const auto quick = events.subscribe();
    for (size_t i = 0; i <= ContainerEvents::kQueued; ++i) {
        events.publish("p", std::to_string(i), ContainerEvent::kStarted);
        const auto event = (*quick)->next(milliseconds(0));
        REQUIRE(event.ok());
        CHECK((*event)->container_id() == std::to_string(i));
    }
    CHECK((*stuck)->next(milliseconds(0)).error().code() == ENOSPC);
    CHECK((*stuck)->next(milliseconds(0)).error().code() == ENOSPC);
}

TEST_CASE("events: subscribers are counted while they live, and closed with moatd") {
    ContainerEvents events;
    std::vector<std::shared_ptr<ContainerEvents::Subscription>> all;
    for (size_t i = 0; i < ContainerEvents::kSubscribers; ++i) {
        all.push_back(*events.subscribe());
    }
    CHECK(events.subscribe().error().code() == ENOSPC);
    all.pop_back();
    auto last = events.subscribe();
    REQUIRE(last.ok());
    std::thread waiting([&] {
        const auto end = (*last)->next(std::chrono::hours(1));
        CHECK(end.error().code() == ECANCELED);
    });
    events.close();
    waiting.join();
    CHECK(events.subscribe().error().code() == ECANCELED);
}

TEST_CASE("resources: an update says only what changes") {
    api::LinuxContainerResources now;
    now.set_memory_limit_in_bytes(100);
    now.set_cpu_shares(512);
    (*now.mutable_unified())["memory.high"] = "50";
    auto* pages = now.add_hugepage_limits();
    pages->set_page_size("2MB");
    pages->set_limit(4);
    const api::LinuxContainerResources before = now;
    api::LinuxContainerResources changes;
    changes.set_memory_limit_in_bytes(200);
    changes.set_cpu_quota(1000);
    (*changes.mutable_unified())["memory.min"] = "5";
    pages = changes.add_hugepage_limits();
    pages->set_page_size("2MB");
    pages->set_limit(0);
    pages = changes.add_hugepage_limits();
    pages->set_page_size("1GB");
    pages->set_limit(1);
    merge_resources(now, changes);
    CHECK(now.memory_limit_in_bytes() == 200);
    CHECK(now.cpu_shares() == 512);
    CHECK(now.cpu_quota() == 1000);
    CHECK(now.unified().at("memory.high") == "50");
    CHECK(now.unified().at("memory.min") == "5");
    REQUIRE(now.hugepage_limits_size() == 2);
    CHECK(now.hugepage_limits(0).limit() == 0);
    CHECK(now.hugepage_limits(1).page_size() == "1GB");

    const auto back = revert_of(before, changes);
    CHECK(back.memory_limit_in_bytes() == 100);
    CHECK(back.cpu_quota() == -1);  // there was none
}

TEST_CASE("resources: a pod gets what its containers may have and its sandbox needs") {
    api::LinuxContainerResources resources, overhead;
    resources.set_memory_limit_in_bytes(100);
    overhead.set_memory_limit_in_bytes(20);
    overhead.set_cpu_quota(5000);
    overhead.set_cpu_period(100000);
    auto sum = with_overhead(resources, overhead);
    CHECK(sum.memory_limit_in_bytes() == 120);
    CHECK(sum.cpu_quota() == 0);  // no limit and something is no limit
    resources.set_cpu_quota(10000);
    resources.set_cpu_period(100000);
    CHECK(with_overhead(resources, overhead).cpu_quota() == 15000);
}
