// Fields that the native handler honours and the sandbox refuses, and what becomes of them.

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api.pb.h"
#include "cri/base/files.h"
#include "cri/containers/capabilities.h"
#include "cri/containers/config_check.h"
#include "cri/containers/default_seccomp.h"
#include "cri/containers/spec.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

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
        image.cmd = {"a"};
    }
    api::LinuxContainerSecurityContext& security() {
        return *config.mutable_linux()->mutable_security_context();
    }
    Result<std::string> text() {
        SpecInput input{.config = config, .pod = pod, .image = image};
        input.rootfs = "/images/root";
        input.container_id = "c1";
        input.pod_id = "p1";
        input.network_namespace = "/run/ns/p1";
        input.pod_directory = dir.path();
        input.sandbox_pid = 77;
        input.kernel = Kernel::kNode;
        return build_spec(input);
    }
    json spec() {
        const auto built = text();
        REQUIRE_MESSAGE(built.ok(), message_of(built));
        return json::parse(*built);
    }
};

bool has_rule(const json& profile, const std::string& name) {
    return std::any_of(profile["syscalls"].begin(), profile["syscalls"].end(), [&](const json& r) {
        return r["action"] == "SCMP_ACT_ALLOW" && !r.contains("args") &&
               std::find(r["names"].begin(), r["names"].end(), name) != r["names"].end();
    });
}

}  // namespace

TEST_CASE("native spec: what is refused for a sandbox is taken for a native container") {
    Request request;
    auto& options = *request.security().mutable_namespace_options();
    options.set_pid(api::NODE);
    options.set_ipc(api::NODE);
    auto* device = request.config.add_devices();
    device->set_host_path("/dev/null");
    device->set_container_path("/dev/nothing");
    device->set_permissions("r");
    CHECK_FALSE(check_container_config(request.config, request.pod, Kernel::kSandbox).ok());
    const auto taken = check_container_config(request.config, request.pod, Kernel::kNode);
    CHECK_MESSAGE(taken.ok(), message_of(taken));
    const json spec = request.spec();
    for (const json& one : spec["linux"]["namespaces"]) {
        CHECK(one["type"] != "pid");
    }
    REQUIRE(spec["linux"]["devices"].size() == 1);
    CHECK(spec["linux"]["devices"][0]["path"] == "/dev/nothing");
    CHECK(spec["linux"]["devices"][0]["major"] == 1);
    CHECK(spec["linux"]["resources"]["devices"] ==
          json({{{"allow", false}, {"access", "rwm"}},
                {{"allow", true}, {"type", "c"}, {"major", 1}, {"minor", 3}, {"access", "r"}}}));
    device->set_permissions("rx");
    CHECK(request.text().error().code() == EINVAL);
}

TEST_CASE("native spec: seccomp profiles") {
    Request request;
    CHECK_FALSE(request.spec()["linux"].contains("seccomp"));
    auto& profile = *request.security().mutable_seccomp();
    profile.set_profile_type(api::SecurityProfile::RuntimeDefault);
    CHECK(request.spec()["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO");
    profile.set_profile_type(api::SecurityProfile::Unconfined);
    CHECK_FALSE(request.spec()["linux"].contains("seccomp"));
    profile.set_profile_type(api::SecurityProfile::Localhost);
    profile.set_localhost_ref("p.json");
    CHECK(request.text().error().code() == EINVAL);
    profile.set_localhost_ref(request.dir / "p.json");
    CHECK_FALSE(request.text().ok());
    REQUIRE(write_file(request.dir / "p.json", "[]").ok());
    CHECK(request.text().error().code() == EINVAL);
    REQUIRE(write_file(request.dir / "p.json", R"({"defaultAction":"SCMP_ACT_LOG"})").ok());
    CHECK(request.spec()["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_LOG");
    request.security().set_privileged(true);
    CHECK_FALSE(request.spec()["linux"].contains("seccomp"));
}

TEST_CASE("native spec: the default profile follows the capabilities") {
    const json plain = default_seccomp(default_capabilities());
    for (const char* name : {"read", "openat", "execve", "futex", "io_submit", "chroot"}) {
        CHECK_MESSAGE(has_rule(plain, name), name);
    }
    for (const char* name : {"mount", "unshare", "bpf", "keyctl", "init_module", "reboot",
                             "io_uring_setup", "userfaultfd", "clone", "clone3", "personality"}) {
        CHECK_MESSAGE(!has_rule(plain, name), name);
    }
    const json more = default_seccomp({"CAP_SYS_ADMIN", "CAP_SYS_TIME"});
    for (const char* name : {"mount", "unshare", "clone", "clone3", "settimeofday"}) {
        CHECK_MESSAGE(has_rule(more, name), name);
    }
    CHECK_FALSE(has_rule(more, "init_module"));
    CHECK_FALSE(has_rule(more, "chroot"));
}

TEST_CASE("native spec: a privileged container has the node's devices and no masks") {
    Request request;
    request.security().set_privileged(true);
    const json spec = request.spec();
    CHECK(spec["linux"]["resources"]["devices"] == json({{{"allow", true}, {"access", "rwm"}}}));
    CHECK_FALSE(spec["linux"].contains("maskedPaths"));
    CHECK(spec["linux"]["devices"].size() > 3);
}

TEST_CASE("native spec: mounts that take part in the node's decide the root's propagation") {
    Request request;
    auto* mount = request.config.add_mounts();
    mount->set_container_path("/data");
    mount->set_host_path(request.dir.path());
    CHECK_FALSE(request.spec()["linux"].contains("rootfsPropagation"));
    mount->set_propagation(api::PROPAGATION_HOST_TO_CONTAINER);
    CHECK(request.spec()["linux"]["rootfsPropagation"] == "rslave");
    mount->set_propagation(api::PROPAGATION_BIDIRECTIONAL);
    CHECK(request.spec()["linux"]["rootfsPropagation"] == "rshared");
    CHECK(check_container_config(request.config, request.pod, Kernel::kNode).ok());
    CHECK_FALSE(check_container_config(request.config, request.pod, Kernel::kSandbox).ok());
}
