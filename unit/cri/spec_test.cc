#include "unit/cri/test.h"

#include "cri/containers/config_check.h"
#include "cri/containers/spec.h"

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api.pb.h"
#include "cri/containers/capabilities.h"
#include "cri/pods/pod_files.h"
#include "runtime/runtime.h"
#include "runtime/spec/spec.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;
using nlohmann::json;

namespace {

struct Request {
    TempDir dir;
    api::ContainerConfig config;
    api::PodSandboxConfig pod;
    ImageConfig image;

    Request() {
        config.mutable_metadata()->set_name("main");
        config.mutable_image()->set_image("busybox");
        image.entrypoint = {"/entry"};
        image.cmd = {"a", "b"};
        image.env = {"FROM=image", "PATH=/image/bin"};
    }
    Result<std::string> text() {
        SpecInput input{.config = config, .pod = pod, .image = image};
        input.user.ids = {1, 2, {2, 3}};
        input.user.home = "/home/u";
        input.rootfs = "/images/root";
        input.container_id = "c1";
        input.pod_id = "p1";
        input.hostname = "web";
        input.network_namespace = "/run/ns/p1";
        input.pod_directory = dir.path();
        input.sandbox_pid = 77;
        return build_spec(input);
    }
    json spec() {
        const auto built = text();
        REQUIRE_MESSAGE(built.ok(), message_of(built));
        return json::parse(*built);
    }
};

json mount_at(const json& spec, const std::string& destination) {
    json found;
    int count = 0;
    for (const json& mount : spec["mounts"]) {
        if (mount["destination"] == destination) {
            found = mount;
            ++count;
        }
    }
    CHECK(count <= 1);
    return found;
}

bool has(const json& list, const std::string& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

TEST_CASE("spec: command and arguments hide the image's as Kubernetes says") {
    Request request;
    CHECK(request.spec()["process"]["args"] == json({"/entry", "a", "b"}));
    request.config.add_args("x");
    CHECK(request.spec()["process"]["args"] == json({"/entry", "x"}));
    request.config.add_command("/cmd");
    CHECK(request.spec()["process"]["args"] == json({"/cmd", "x"}));
    request.config.clear_args();
    CHECK(request.spec()["process"]["args"] == json({"/cmd"}));
    request.config.clear_command();
    request.image.entrypoint.clear();
    request.image.cmd.clear();
    CHECK(contains(message_of(request.text()), "command"));
}

TEST_CASE("spec: environment of image and request, and what everybody expects") {
    Request request;
    auto* env = request.config.add_envs();
    env->set_key("FROM");
    env->set_value("request");
    const json list = request.spec()["process"]["env"];
    CHECK(has(list, "FROM=request"));
    CHECK_FALSE(has(list, "FROM=image"));
    CHECK(has(list, "PATH=/image/bin"));
    CHECK(has(list, "HOME=/home/u"));
    CHECK(has(list, "HOSTNAME=web"));
    env->set_key("A=B");
    CHECK(contains(message_of(request.text()), "A=B"));
    env->set_key("BYTES");
    env->set_value("\xff\xfe");
    CHECK(contains(message_of(request.text()), "UTF-8"));
}

TEST_CASE("spec: who it is and whom it joins") {
    Request request;
    const json spec = request.spec();
    CHECK(spec["annotations"]["io.kubernetes.cri.container-type"] == "container");
    CHECK(spec["annotations"]["io.kubernetes.cri.sandbox-id"] == "p1");
    CHECK(spec["process"]["user"]["uid"] == 1);
    CHECK(spec["process"]["user"]["additionalGids"] == json({2, 3}));
    CHECK(spec["root"]["path"] == "/images/root");
    CHECK(spec["hostname"] == "web");
}

TEST_CASE("spec: a pod's author cannot loosen the sandbox by annotations") {
    Request request;
    (*request.pod.mutable_annotations())["dev.moat.overlay"] = "none";
    (*request.config.mutable_annotations())["dev.moat.host-uds"] = "connect";
    (*request.config.mutable_annotations())["io.kubernetes.cri.sandbox-id"] = "other";
    (*request.config.mutable_annotations())["dev.moat.spec.mount.shm.source"] = "/etc";
    (*request.pod.mutable_annotations())["dev.gvisor.spec.mount.cache.type"] = "tmpfs";
    const json annotations = request.spec()["annotations"];
    CHECK_FALSE(annotations.contains("dev.moat.overlay"));
    CHECK_FALSE(annotations.contains("dev.moat.host-uds"));
    CHECK(annotations["io.kubernetes.cri.sandbox-id"] == "p1");
    CHECK(annotations["dev.moat.spec.mount.shm.source"] == request.dir.path() + "/shm");
    CHECK(annotations["dev.gvisor.spec.mount.cache.type"] == "tmpfs");
}

TEST_CASE("spec: pid namespace of the pod or of the container") {
    Request request;
    const auto pid = [&] {
        const json spec = request.spec();
        for (const json& ns : spec["linux"]["namespaces"]) {
            if (ns["type"] == "pid") {
                return ns;
            }
        }
        return json();
    };
    auto* options =
        request.config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
    options->set_pid(api::CONTAINER);
    CHECK_FALSE(pid().contains("path"));
    options->set_pid(api::POD);
    CHECK(pid()["path"] == "/proc/77/ns/pid");
}

TEST_CASE("spec: requested mounts are made if missing, resolved, sorted, and replace ours") {
    Request request;
    REQUIRE(make_directories(request.dir / "real").ok());
    REQUIRE(symlink("real", (request.dir / "link").c_str()) == 0);
    const auto add = [&](const std::string& at, const std::string& from, bool read_only) {
        auto* mount = request.config.add_mounts();
        mount->set_container_path(at);
        mount->set_host_path(request.dir / from);
        mount->set_readonly(read_only);
    };
    add("/data/deep", "new", true);
    add("/data", "link", false);
    add("/etc/hosts/", "hosts-of-kubelet", false);
    const json spec = request.spec();
    CHECK(mount_at(spec, "/data")["source"] == request.dir / "real");
    CHECK(has(mount_at(spec, "/data/deep")["options"], "ro"));
    CHECK(has(mount_at(spec, "/data")["options"], "rw"));
    CHECK(mount_at(spec, "/etc/hosts")["source"] == request.dir / "hosts-of-kubelet");
    CHECK(mount_at(spec, "/etc/resolv.conf")["source"] == request.dir / "resolv.conf");
    CHECK(access((request.dir / "new").c_str(), F_OK) == 0);
    size_t data = 0, deep = 0, proc = 0, index = 0;
    for (const json& mount : spec["mounts"]) {
        ++index;
        data = mount["destination"] == "/data" ? index : data;
        deep = mount["destination"] == "/data/deep" ? index : deep;
        proc = mount["destination"] == "/proc" ? index : proc;
    }
    CHECK(proc < data);
    CHECK(data < deep);
}

TEST_CASE("spec: privileged has all capabilities and no masks, others have the usual ones") {
    Request request;
    json spec = request.spec();
    CHECK(has(spec["process"]["capabilities"]["bounding"], "CAP_CHOWN"));
    CHECK_FALSE(has(spec["process"]["capabilities"]["bounding"], "CAP_SYS_ADMIN"));
    CHECK(has(spec["linux"]["maskedPaths"], "/proc/kcore"));
    CHECK(has(mount_at(spec, "/sys")["options"], "ro"));
    auto* security = request.config.mutable_linux()->mutable_security_context();
    security->add_masked_paths("/proc/mine");
    spec = request.spec();
    CHECK(spec["linux"]["maskedPaths"] == json({"/proc/mine"}));
    CHECK(spec["linux"]["readonlyPaths"].empty());
    security->set_privileged(true);
    spec = request.spec();
    CHECK(has(spec["process"]["capabilities"]["bounding"], "CAP_SYS_ADMIN"));
    CHECK_FALSE(spec["linux"].contains("maskedPaths"));
    CHECK(has(mount_at(spec, "/sys")["options"], "rw"));
}

TEST_CASE("capabilities: ALL first, then the exceptions") {
    CHECK(adjust_capabilities(default_capabilities(), {"ALL"}, {"NET_RAW"})->size() ==
          moat::runtime::capability_names().size() - 1);
    CHECK(*adjust_capabilities(default_capabilities(), {"CAP_CHOWN"}, {"ALL"}) ==
          std::vector<std::string>{"CAP_CHOWN"});
    CHECK(adjust_capabilities({}, {"net_admin"}, {})->front() == "CAP_NET_ADMIN");
    CHECK_FALSE(adjust_capabilities({}, {"FLY"}, {}).ok());
}

TEST_CASE("spec: limits reach config.json and the runtime") {
    Request request;
    auto* limits = request.config.mutable_linux()->mutable_resources();
    limits->set_memory_limit_in_bytes(1 << 20);
    limits->set_cpu_quota(50000);
    limits->set_oom_score_adj(-997);
    const json spec = request.spec();
    CHECK(spec["linux"]["resources"]["memory"]["limit"] == 1 << 20);
    CHECK(spec["linux"]["resources"]["cpu"]["quota"] == 50000);
    CHECK_FALSE(spec["linux"]["resources"]["cpu"].contains("period"));
    CHECK(spec["process"]["oomScoreAdj"] == -997);
    const auto resources = to_resources(*limits);
    CHECK(resources.memory_limit_bytes == 1 << 20);
    CHECK_FALSE(resources.cpu_shares.has_value());
}

TEST_CASE("spec: what is not built is refused by its field") {
    Request request;
    const auto refused = [&] {
        return check_container_config(request.config, request.pod, Kernel::kSandbox);
    };
    REQUIRE(refused().ok());
    auto* mount = request.config.add_mounts();
    mount->set_container_path("/x");
    mount->set_host_path("/x");
    mount->set_propagation(api::PROPAGATION_BIDIRECTIONAL);
    CHECK(refused().error().code() == EOPNOTSUPP);
    CHECK(contains(refused().error().message(), "PROPAGATION_BIDIRECTIONAL"));
    mount->set_propagation(api::PROPAGATION_PRIVATE);
    mount->set_host_path("relative");
    CHECK(refused().error().code() == EINVAL);
    request.config.clear_mounts();
    request.config.set_log_path("../../etc/cron.d/x");
    CHECK(contains(refused().error().message(), "log_path"));
    request.config.clear_log_path();
    auto* security = request.config.mutable_linux()->mutable_security_context();
    security->mutable_namespace_options()->set_pid(api::NODE);
    CHECK(contains(refused().error().message(), "pid"));
    security->clear_namespace_options();
    security->mutable_seccomp()->set_profile_type(api::SecurityProfile::Localhost);
    CHECK(contains(refused().error().message(), "seccomp"));
    CHECK_FALSE(check_pod_config(api::PodSandboxConfig(), Kernel::kSandbox).ok());
}

TEST_CASE("stop signal: of the request, the image, or TERM") {
    Request request;
    CHECK(*stop_signal(request.config, request.image) == 15);
    request.image.stop_signal = "SIGQUIT";
    CHECK(*stop_signal(request.config, request.image) == 3);
    request.config.set_stop_signal(api::SIGNAL_SIGRTMINPLUS3);
    CHECK(*stop_signal(request.config, request.image) == 37);
    request.config.clear_stop_signal();
    request.image.stop_signal = "SIGWHAT";
    CHECK_FALSE(stop_signal(request.config, request.image).ok());
}

TEST_CASE("resolv.conf: lines of the request, and no word breaks out of its line") {
    api::PodSandboxConfig pod;
    pod.mutable_dns_config()->add_servers("10.96.0.10");
    pod.mutable_dns_config()->add_searches("a.svc");
    pod.mutable_dns_config()->add_searches("b.svc");
    pod.mutable_dns_config()->add_options("ndots:5");
    CHECK(*resolv_conf(pod, {}) == "search a.svc b.svc\nnameserver 10.96.0.10\noptions ndots:5\n");
    pod.mutable_dns_config()->add_servers("1.1.1.1\noptions evil");
    CHECK_FALSE(resolv_conf(pod, {}).ok());
    const CniDns network{{"10.0.0.53"}, {"example.org"}, {}};
    CHECK(*resolv_conf({}, network) == "search example.org\nnameserver 10.0.0.53\n");
    CHECK_FALSE(resolv_conf({}, {{"1.1.1.1\nsearch evil"}, {}, {}}).ok());
}
