#include <stdlib.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "runtime/rootfs/mounts.h"
#include "runtime/util/files.h"
#include "unit/runtime/temp_dir.h"

using namespace moat::runtime;

namespace {

struct Bundle : TempDir {
    Spec spec;
    Bundle() {
        mkdir((path + "/rootfs").c_str(), 0755);
        mkdir((path + "/volume").c_str(), 0755);
        spec.root_path = "rootfs";
    }
    moat::runtime::Result<FilePlan> plan() { return plan_files(spec, "c", path, spec.annotations); }
};

}  // namespace

TEST_CASE("mount plan: types go to the sentry, binds to the gofer, in their order") {
    Bundle b;
    b.spec.mounts = {{"/proc", "proc", "proc", {}},
                     {"/dev", "tmpfs", "tmpfs", {"nosuid", "mode=755"}},
                     {"/data/../vol", "bind", "volume", {"rbind", "ro", "noexec"}},
                     {"/tmp", "tmpfs", "tmpfs", {"size=1m", "rprivate"}}};
    const auto plan = b.plan();
    REQUIRE(plan.ok());
    REQUIRE(plan->mounts.size() == 4);
    CHECK(plan->mounts[0].type == "proc");
    CHECK(plan->mounts[1].type == "dev");
    CHECK(plan->mounts[1].options == std::vector<std::string>{"mode=755"});
    CHECK(plan->mounts[2].type == "gofer");
    CHECK(plan->mounts[2].destination == "/vol");
    CHECK(plan->mounts[2].gofer_mount == 1);
    CHECK(plan->mounts[2].read_only);
    CHECK(plan->mounts[2].options.empty());
    CHECK(plan->mounts[3].options == std::vector<std::string>{"size=1m"});
    REQUIRE(plan->gofer.mounts.size() == 2);
    CHECK(plan->gofer.mounts[0].read_only);
    CHECK(plan->gofer.mounts[1].source == b.path + "/volume");
    CHECK(plan->root.overlay);
    const auto json = nlohmann::json::parse(gofer_plan_json(plan->gofer));
    CHECK(json["mounts"][1]["read_only"] == true);
}

TEST_CASE("mount plan: ro ends where another mount begins, rro does not; slaves stay slaves") {
    Bundle b;
    // What is mounted below a slave later cannot be known.
    b.spec.mounts = {{"/a", "bind", "volume", {"rbind", "ro", "rslave"}},
                     {"/b", "bind", "volume", {"rbind", "rro", "rslave"}},
                     {"/c", "bind", "volume", {"rbind", "ro"}}};
    const auto plan = b.plan();
    REQUIRE(plan.ok());
    REQUIRE(plan->gofer.mounts.size() == 4);
    CHECK(plan->gofer.mounts[1].options == std::vector<std::string>{"rslave", "ro-top"});
    CHECK_FALSE(plan->gofer.mounts[1].read_only);
    CHECK_FALSE(plan->mounts[1].read_only);
    CHECK(plan->gofer.mounts[2].options == std::vector<std::string>{"rslave"});
    CHECK(plan->gofer.mounts[2].read_only);
    CHECK(plan->mounts[2].read_only);
    CHECK(plan->gofer.mounts[3].options.empty());
    CHECK(plan->gofer.mounts[3].read_only);
}

TEST_CASE("mount plan: /dev is there even when nobody asks for it") {
    Bundle b;
    const auto plan = b.plan();
    REQUIRE(plan.ok());
    REQUIRE(plan->mounts.size() == 1);
    CHECK(plan->mounts[0].type == "dev");
}

TEST_CASE("mount plan: files in memory are bounded by the container's memory") {
    Bundle b;
    b.spec.mounts = {{"/tmp", "tmpfs", "tmpfs", {"nosuid"}},
                     {"/run", "tmpfs", "tmpfs", {"size=1m"}}};
    auto plan = b.plan();
    REQUIRE(plan.ok());
    CHECK(plan->root.upper_bytes == 0);
    b.spec.limits.memory_bytes = 64 << 20;
    plan = b.plan();
    REQUIRE(plan.ok());
    CHECK(plan->root.upper_bytes == 64 << 20);
    const auto options = [&](const char* at) {
        for (const auto& mount : plan->mounts) {
            if (mount.destination == at) {
                return mount.options;
            }
        }
        return std::vector<std::string>{"no such mount"};
    };
    CHECK(options("/tmp") == std::vector<std::string>{"size=67108864"});
    CHECK(options("/run") == std::vector<std::string>{"size=1m"});
    b.spec.limits.memory_bytes = -1;
    CHECK(b.plan()->root.upper_bytes == 0);
}

TEST_CASE("mount plan: a hinted volume of a pod becomes a tmpfs that its containers share") {
    for (const std::string prefix : {"dev.moat.spec.mount.", "dev.gvisor.spec.mount."}) {
        Bundle b;
        b.spec.mounts = {{"/cache", "bind", b.path + "/volume", {"rw"}}};
        b.spec.annotations = {{prefix + "vol.source", b.path + "/volume"},
                              {prefix + "vol.type", "tmpfs"},
                              {prefix + "vol.share", "pod"}};
        auto plan = b.plan();
        REQUIRE(plan.ok());
        CHECK(plan->mounts[1].type == "shared");
        CHECK(plan->mounts[1].source == "vol");
        CHECK(plan->gofer.mounts.size() == 1);
        b.spec.annotations[prefix + "vol.share"] = "container";
        CHECK(b.plan()->mounts[1].type == "tmpfs");
        b.spec.annotations[prefix + "vol.share"] = "shared";
        CHECK(b.plan()->mounts[1].type == "gofer");
        b.spec.annotations[prefix + "vol.share"] = "galaxy";
        CHECK_FALSE(b.plan().ok());
    }
}

TEST_CASE("mount plan: errors name the mount and what is wrong with it") {
    const std::pair<SpecMount, const char*> cases[] = {
        {{"/data", "bind", "/nowhere/at/all", {}}, "mount /data: source: /nowhere/at/all"},
        {{"/data", "bind", "", {}}, "mount /data: a bind mount needs a source"},
        {{"/data", "ext4", "/dev/sda", {}}, "mount /data: file system type \"ext4\""},
        {{"/", "tmpfs", "tmpfs", {}}, "mount /: nothing can be mounted over the root"},
    };
    for (const auto& [mount, words] : cases) {
        Bundle b;
        b.spec.mounts = {mount};
        const auto plan = b.plan();
        REQUIRE_FALSE(plan.ok());
        CAPTURE(plan.error().message());
        CHECK(plan.error().message().find(words) == 0);
    }
    Bundle b;
    b.spec.root_path = "missing";
    CHECK(b.plan().error().message().find("root: " + b.path + "/missing") == 0);
    CHECK(b.plan().error().code() == ENOENT);
}
