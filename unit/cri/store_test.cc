
#include "unit/cri/test.h"

#include "cri/store/container_store.h"
#include "cri/store/pod_store.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;

namespace {

PodRecord pod_record() {
    PodRecord pod;
    pod.id = "p1";
    pod.name = "web";
    pod.name_space = "default";
    pod.uid = "u1";
    pod.attempt = 2;
    pod.handler = "moat";
    pod.created_at_ns = 42;
    pod.config = std::string("\0binary\xff", 8);
    pod.network = {
        PodNetwork::Kind::kCni, "/run/netns/p1", {"10.0.0.2", "fd00::2"}, "{\"name\":\"n\"}", "{}"};
    return pod;
}

}  // namespace

TEST_CASE("store: what was written is there when the file is opened again") {
    const TempDir dir;
    {
        const auto database = Database::open(dir / "db");
        REQUIRE_MESSAGE(database.ok(), message_of(Status()));
        PodStore pods(**database);
        REQUIRE(pods.insert(pod_record()).ok());
        ContainerStore containers(**database);
        ContainerRecord container;
        container.id = "c1";
        container.pod_id = "p1";
        container.name = "main";
        container.user = {7, 8, {8, 9}};
        container.stop_signal = 3;
        container.config = "proto";
        REQUIRE(containers.insert(container).ok());
        container.phase = ContainerPhase::kExited;
        container.exit_code = 137;
        container.reason = "OOMKilled";
        REQUIRE(containers.update(container).ok());
    }
    const auto database = Database::open(dir / "db");
    REQUIRE(database.ok());
    const auto pods = PodStore(**database).all();
    REQUIRE(pods.ok());
    REQUIRE(pods->size() == 1);
    const PodRecord& pod = pods->front();
    CHECK(pod.config == pod_record().config);
    CHECK(pod.attempt == 2);
    CHECK(pod.state == PodState::kCreating);
    CHECK(pod.network.kind == PodNetwork::Kind::kCni);
    CHECK(pod.network.ips == pod_record().network.ips);
    const auto containers = ContainerStore(**database).all();
    REQUIRE(containers.ok());
    REQUIRE(containers->size() == 1);
    CHECK(containers->front().phase == ContainerPhase::kExited);
    CHECK(containers->front().exit_code == 137);
    CHECK(containers->front().user.groups == std::vector<uint32_t>{8, 9});
    CHECK(containers->front().stop_signal == 3);
}

TEST_CASE("store: a name is only taken once") {
    const TempDir dir;
    const auto database = Database::open(dir / "db");
    PodStore pods(**database);
    PodRecord pod = pod_record();
    REQUIRE(pods.insert(pod).ok());
    pod.id = "p2";
    const auto again = pods.insert(pod);
    REQUIRE_FALSE(again.ok());
    CHECK(again.error().code() == EEXIST);
    pod.attempt = 3;
    CHECK(pods.insert(pod).ok());
    CHECK(pods.erase("p1").ok());
    CHECK(pods.all()->size() == 1);
}

TEST_CASE("store: a transaction that does not commit leaves nothing") {
    const TempDir dir;
    const auto database = Database::open(dir / "db");
    {
        auto transaction = (*database)->begin();
        REQUIRE(transaction.ok());
        REQUIRE(transaction->run("INSERT INTO settings (key, value) VALUES ('a', 'b')").ok());
    }
    int rows = 0;
    REQUIRE((*database)->query("SELECT 1 FROM settings", [&](const Row&) { ++rows; }).ok());
    CHECK(rows == 0);
}

TEST_CASE("store: a file of a newer schema is not touched") {
    const TempDir dir;
    {
        const auto database = Database::open(dir / "db");
        REQUIRE((*database)->run("PRAGMA user_version=1000").ok());
    }
    const auto newer = Database::open(dir / "db");
    REQUIRE_FALSE(newer.ok());
    CHECK(contains(newer.error().message(), "newer"));
}
