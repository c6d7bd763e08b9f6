// Pods and containers from RunPodSandbox to RemovePodSandbox over a runtime of the test's own, with
// moatds that are killed in between: a Node that is dropped without any shutdown of its pods.

#include "unit/cri/test.h"

#include <unistd.h>

#include <thread>

#include "api.pb.h"
#include "cri/handlers/handlers.h"
#include "cri/images/archive.h"
#include "cri/images/blob_reader.h"
#include "cri/server/node.h"
#include "unit/cri/app_pod.h"
#include "unit/cri/fake_runtime.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;
using moat::runtime::FakeWorld;

namespace {

struct World {
    TempDir dir;
    Settings settings;
    std::unique_ptr<Node> node;

    World() {
        FakeWorld::get().reset();
        settings.root = dir / "root";
        settings.state = dir / "state";
        settings.cni_conf_dir = dir / "cni";
        settings.registry_config_dir = "";
        restart();
        load_image();
    }
    static std::unique_ptr<Handlers> handlers() {
        auto all = std::make_unique<Handlers>();
        all->add("moat", std::make_unique<moat::runtime::FakeRuntime>());
        all->add("other", std::make_unique<moat::runtime::FakeRuntime>());
        return all;
    }
    void restart() {
        node.reset();
        auto opened = Node::open(settings, handlers());
        REQUIRE_MESSAGE(opened.ok(), message_of(opened));
        node = std::move(*opened);
    }
    void load_image() {
        REQUIRE(write_file(dir / "image.tar", app_archive()).ok());
        const auto loaded = load_archive(*node->images, dir / "image.tar", "");
        REQUIRE_MESSAGE(loaded.ok(), message_of(loaded));
    }
    api::PodSandboxConfig pod_config() const { return app_pod(dir / "logs"); }
    api::ContainerConfig container_config() const { return app_container(); }
    std::string run_pod() {
        const auto id = node->pods->run(pod_config(), "moat");
        REQUIRE_MESSAGE(id.ok(), message_of(id));
        return *id;
    }
    std::string start_container(const std::string& pod) {
        const auto id = node->containers->create(pod, container_config());
        REQUIRE_MESSAGE(id.ok(), message_of(id));
        const auto started = node->containers->start(*id);
        REQUIRE_MESSAGE(started.ok(), message_of(started));
        return *id;
    }
    ContainerRecord record(const std::string& id) {
        const auto container = node->containers->find(id);
        REQUIRE(container.ok());
        return (*container)->snapshot();
    }
    /// Waits for the container's end as StopContainer does.
    ContainerRecord ended(const std::string& id) {
        const auto container = *node->containers->find(id);
        std::unique_lock lock(container->mu);
        REQUIRE(container->changed.wait_for(lock, std::chrono::seconds(20), [&] {
            return container->record.phase == ContainerPhase::kExited;
        }));
        return container->record;
    }
};

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

}  // namespace

TEST_CASE("lifecycle: a pod and its container from run to remove leave nothing") {
    World world;
    const std::string pod = world.run_pod();
    const std::string id = world.start_container(pod);
    CHECK(world.record(id).phase == ContainerPhase::kRunning);
    CHECK(world.record(id).user.uid == 9);
    CHECK(read_file(world.dir / "logs/main/0.log", 100).value_or("") == "created\n");
    CHECK(exists(world.settings.container_directory(id) + "/config.json"));
    CHECK(exists(world.settings.pod_directory(pod) + "/resolv.conf"));
    REQUIRE(world.node->containers->stop(id, std::chrono::seconds(5)).ok());
    CHECK(world.record(id).exit_code == 128 + 15);
    CHECK(world.record(id).reason == "Error");
    REQUIRE(world.node->pods->stop(pod).ok());
    CHECK((*world.node->pods->find(pod))->snapshot().state == PodState::kStopped);
    REQUIRE(world.node->pods->remove(pod).ok());
    CHECK_FALSE(world.node->pods->find(pod).ok());
    CHECK_FALSE(world.node->containers->find(id).ok());
    CHECK_FALSE(exists(world.settings.container_directory(id)));
    CHECK_FALSE(exists(world.settings.pod_directory(pod)));
    CHECK(exists(world.dir / "logs/main/0.log"));
    // Again, and of what never was.
    CHECK(world.node->pods->stop(pod).ok());
    CHECK(world.node->pods->remove(pod).ok());
    CHECK(world.node->containers->stop(id, std::chrono::seconds(0)).ok());
    CHECK(world.node->containers->remove("no-such").ok());
}

TEST_CASE("lifecycle: a guest that ignores the stop signal is killed after the grace period") {
    World world;
    const std::string id = world.start_container(world.run_pod());
    {
        const std::lock_guard lock(FakeWorld::get().mu);
        FakeWorld::get().containers.at(id).ignores_term = true;
    }
    REQUIRE(world.node->containers->stop(id, std::chrono::seconds(1)).ok());
    CHECK(world.record(id).exit_code == 137);
}

TEST_CASE("lifecycle: exits carry code and reason") {
    World world;
    const std::string pod = world.run_pod();
    const std::string id = world.start_container(pod);
    FakeWorld::get().end(id, 0, 0);
    CHECK(world.ended(id).reason == "Completed");
    CHECK(world.record(id).finished_at_ns == 1'000'000'000);
    REQUIRE(world.node->containers->remove(id).ok());
    const std::string second = world.start_container(pod);
    FakeWorld::get().end(second, 0, 9, true);
    CHECK(world.ended(second).reason == "OOMKilled");
    CHECK(world.record(second).exit_code == 137);
}

TEST_CASE("lifecycle: a restarted moatd finds pods and containers, and what ended meanwhile") {
    World world;
    const std::string pod = world.run_pod();
    const std::string id = world.start_container(pod);
    world.restart();
    CHECK(world.record(id).phase == ContainerPhase::kRunning);
    CHECK((*world.node->pods->find(pod))->snapshot().state == PodState::kReady);
    world.node.reset();
    FakeWorld::get().end(id, 3, 0);
    world.restart();
    CHECK(world.record(id).phase == ContainerPhase::kExited);
    CHECK(world.record(id).exit_code == 3);
    // It listens again: the next container's end is heard.
    REQUIRE(world.node->containers->remove(id).ok());
    const std::string second = world.start_container(pod);
    FakeWorld::get().end(second, 4, 0);
    CHECK(world.ended(second).exit_code == 4);
}

TEST_CASE("lifecycle: killed between the intent to start and the start") {
    World world;
    const std::string pod = world.run_pod();
    const auto id = world.node->containers->create(pod, world.container_config());
    REQUIRE(id.ok());
    world.node.reset();
    {
        const auto database = Database::open(world.settings.database_path());
        REQUIRE((*database)->run("UPDATE containers SET state=2, started_at=5").ok());
    }
    world.restart();
    CHECK(world.record(*id).phase == ContainerPhase::kCreated);
    CHECK(world.node->containers->start(*id).ok());
}

TEST_CASE("lifecycle: killed while a container is made, and while a pod is made") {
    World world;
    const std::string pod = world.run_pod();
    const auto id = world.node->containers->create(pod, world.container_config());
    REQUIRE(id.ok());
    world.node.reset();
    {
        const auto database = Database::open(world.settings.database_path());
        REQUIRE((*database)->run("UPDATE containers SET state=0").ok());
    }
    world.restart();
    CHECK_FALSE(world.node->containers->find(*id).ok());
    CHECK_FALSE(exists(world.settings.container_directory(*id)));
    CHECK(FakeWorld::get().containers.empty());
    world.node.reset();
    {
        const auto database = Database::open(world.settings.database_path());
        REQUIRE((*database)->run("UPDATE pods SET state=0").ok());
    }
    world.restart();
    CHECK_FALSE(world.node->pods->find(pod).ok());
    CHECK(FakeWorld::get().sandboxes.empty());
    CHECK_FALSE(exists(world.settings.pod_directory(pod)));
    // The name is free again.
    world.run_pod();
}

TEST_CASE("lifecycle: the death of a sentry ends its containers and unreadies its pod") {
    World world;
    const std::string pod = world.run_pod();
    const std::string id = world.start_container(pod);
    FakeWorld::get().kill_sandbox(pod);
    const ContainerRecord record = world.ended(id);
    CHECK(record.exit_code == 137);
    CHECK(contains(record.message, "sandbox"));
    CHECK((*world.node->pods->find(pod))->snapshot().state == PodState::kDied);
    CHECK(world.node->containers->create(pod, world.container_config()).error().code() == EBUSY);
    CHECK(world.node->pods->remove(pod).ok());
}

TEST_CASE("lifecycle: failed creations are undone and their names free") {
    World world;
    FakeWorld::get().fail_at = "create_sandbox";
    const auto failed = world.node->pods->run(world.pod_config(), "");
    REQUIRE_FALSE(failed.ok());
    CHECK(contains(failed.error().message(), "as the test wants"));
    CHECK(world.node->pods->list().empty());
    const std::string pod = world.run_pod();
    for (const char* call : {"create", "start"}) {
        const auto id = world.node->containers->create(pod, world.container_config());
        REQUIRE(id.ok());
        CHECK(FakeWorld::get().containers.empty());  // the runtime hears of it when it starts
        FakeWorld::get().fail_at = call;
        CHECK_FALSE(world.node->containers->start(*id).ok());
        CHECK(world.record(*id).reason == "StartError");
        CHECK(world.record(*id).exit_code == 128);
        CHECK(FakeWorld::get().containers.empty());
        CHECK(world.node->containers->remove(*id).ok());
    }
}

TEST_CASE("lifecycle: names are taken once, and states allow only what they allow") {
    World world;
    const std::string pod = world.run_pod();
    CHECK(world.node->pods->run(world.pod_config(), "").error().code() == EEXIST);
    const std::string id = world.start_container(pod);
    CHECK(world.node->containers->create(pod, world.container_config()).error().code() == EEXIST);
    CHECK(world.node->containers->start(id).error().code() == EBUSY);
    CHECK(world.node->containers->find(id.substr(0, 10)).ok());
    CHECK_FALSE(world.node->containers->find("").ok());
    api::ContainerConfig config = world.container_config();
    config.mutable_metadata()->set_name("other");
    config.mutable_image()->set_image("test/missing");
    CHECK(world.node->containers->create(pod, config).error().code() == ENOENT);
    REQUIRE(world.node->pods->stop(pod).ok());
    CHECK(world.node->containers->create(pod, config).error().code() == EBUSY);
}

TEST_CASE("lifecycle: exec brings both streams and the code, is capped, and is killed in time") {
    World world;
    const std::string id = world.start_container(world.run_pod());
    const auto result =
        world.node->containers->exec_sync(id, {"fail", "hello"}, std::chrono::seconds(0));
    REQUIRE_MESSAGE(result.ok(), message_of(result));
    CHECK(result->out == "hello");
    CHECK(result->err == "err");
    CHECK(result->exit_code == 7);
    const auto hung = world.node->containers->exec_sync(id, {"hang"}, std::chrono::seconds(1));
    REQUIRE_FALSE(hung.ok());
    CHECK(hung.error().code() == ETIMEDOUT);
    CHECK(world.node->containers->exec_sync(id, {}, std::chrono::seconds(0)).error().code() ==
          EINVAL);
    FakeWorld::get().end(id, 0, 0);
    world.ended(id);
    CHECK(world.node->containers->exec_sync(id, {"x"}, std::chrono::seconds(0)).error().code() ==
          EBUSY);
}

TEST_CASE("lifecycle: a rotated log goes on in a new file") {
    World world;
    const std::string id = world.start_container(world.run_pod());
    REQUIRE(rename((world.dir / "logs/main/0.log").c_str(),
                   (world.dir / "logs/main/0.log.1").c_str()) == 0);
    REQUIRE(world.node->containers->reopen_log(id).ok());
    CHECK(read_file(world.dir / "logs/main/0.log", 100).value_or("") == "reopened\n");
    FakeWorld::get().end(id, 0, 0);
    world.ended(id);
    CHECK(world.node->containers->reopen_log(id).error().code() == EBUSY);
}

TEST_CASE("lifecycle: an image's root lives as long as a container uses it") {
    World world;
    const std::string id = world.start_container(world.run_pod());
    const std::string root = world.node->images->root_path(world.record(id).chain_id);
    REQUIRE(exists(root + "/etc/passwd"));
    REQUIRE(world.node->images->remove("test/app:1").ok());
    CHECK_FALSE(world.node->images->find("test/app:1")->has_value());
    CHECK(exists(root + "/etc/passwd"));
    REQUIRE(world.node->containers->remove(id).ok());
    REQUIRE(world.node->images->collect().ok());
    CHECK_FALSE(exists(root));
    CHECK(world.node->images->usage()->bytes == 0);
}

TEST_CASE("lifecycle: a root has one moatd") {
    World world;
    const auto second = Node::open(world.settings, World::handlers());
    REQUIRE_FALSE(second.ok());
    CHECK(second.error().code() == EBUSY);
}

TEST_CASE("lifecycle: a pod keeps its handler when the default changes") {
    World world;
    REQUIRE(world.node->handlers->find("other").ok());
    Handler* other = *world.node->handlers->find("other");
    REQUIRE(world.node->handlers->set_default("other").ok());
    const auto id = world.node->pods->run(world.pod_config(), "");
    REQUIRE_MESSAGE(id.ok(), message_of(id));
    CHECK(&(*world.node->pods->find(*id))->handler == other);
    const std::string container = world.start_container(*id);
    world.restart();  // "moat" is the default again
    const auto pod = *world.node->pods->find(*id);
    CHECK(pod->handler.name == "other");
    CHECK(pod->snapshot().handler.empty());
    CHECK(&(*world.node->containers->find(container))->runtime == &pod->runtime());
}

TEST_CASE("lifecycle: handlers that are unknown or cannot run here make no pod") {
    World world;
    const auto unknown = world.node->pods->run(world.pod_config(), "kata");
    REQUIRE_FALSE(unknown.ok());
    CHECK(unknown.error().code() == EINVAL);
    CHECK(unknown.error().message() ==
          "runtime_handler: \"kata\" is unknown; there are \"\", \"moat\" and \"other\"");
    (*world.node->handlers->find("other"))->unavailable = "no runc";
    const auto broken = world.node->pods->run(world.pod_config(), "other");
    REQUIRE_FALSE(broken.ok());
    CHECK(broken.error().code() == EBUSY);
    CHECK(world.node->pods->list().empty());
}
