// CDI devices: where they are found, and what becomes of a container that has them.

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cri/cdi/edits.h"
#include "cri/cdi/specs.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

using namespace moat::cri;
using nlohmann::json;

namespace {

struct Node {
    TempDir dir;
    std::vector<std::string> directories{dir / "etc", dir / "run"};

    Node() {
        REQUIRE(make_directories(directories[0]).ok());
        REQUIRE(make_directories(directories[1]).ok());
    }
    void write(const std::string& name, const std::string& text) {
        REQUIRE(write_file(dir / name, text).ok());
    }
    Result<std::vector<CdiDevice>> find(const std::vector<std::string>& names) {
        return find_cdi_devices(directories, names, "config.CDI_devices");
    }
    std::string refusal(const std::string& name) {
        const auto found = find({name});
        REQUIRE_FALSE(found.ok());
        CHECK(found.error().code() == EINVAL);
        return found.error().message();
    }
};

json container() {
    return {{"process", {{"env", {"PATH=/bin", "A=old"}}, {"user", {{"uid", 5}, {"gid", 6}}}}},
            {"mounts", json::array({{{"destination", "/data"}, {"source", "/a"}}})},
            {"linux", {{"resources", {{"devices", json::array()}}}}}};
}

constexpr char kSpec[] = R"(
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: [ "A=new", "COMMON=1" ]
devices:
  - name: all
    containerEdits: &edits
      deviceNodes:
        - path: /dev/vgpu
          hostPath: /dev/null
          permissions: r
        - { path: /dev/made, type: c, major: 240, minor: 7, fileMode: 0640, uid: 0 }
      mounts:
        - { hostPath: /tmp, containerPath: /data, options: [ ro, nosuid ] }
      hooks:
        - { hookName: createContainer, path: /bin/true, args: [ "true", "1" ] }
      additionalGids: [ 44 ]
  - name: "1"
    containerEdits:
      env: [ ONE=1 ]
)";

}  // namespace

TEST_CASE("CDI: edits of the specification once, those of its devices each") {
    Node node;
    node.write("etc/vendor.yaml", kSpec);
    const auto found = node.find({"vendor.com/gpu=all", "vendor.com/gpu=1", "vendor.com/gpu=all"});
    REQUIRE_MESSAGE(found.ok(), message_of(found));
    REQUIRE(found->size() == 2);
    json spec = container();
    const Status applied = apply_cdi(spec, *found, Kernel::kNode);
    REQUIRE_MESSAGE(applied.ok(), message_of(applied));
    CHECK(spec["process"]["env"] == json({"PATH=/bin", "A=new", "COMMON=1", "ONE=1"}));
    CHECK(spec["process"]["user"]["additionalGids"] == json({44}));
    const json& devices = spec["linux"]["devices"];
    REQUIRE(devices.size() == 2);
    CHECK(devices[0]["path"] == "/dev/vgpu");
    CHECK(devices[0]["major"] == 1);
    CHECK(devices[0]["minor"] == 3);
    CHECK(devices[0]["uid"] == 5);  // of whom the container runs as
    CHECK(devices[1] == json({{"path", "/dev/made"},
                              {"type", "c"},
                              {"major", 240},
                              {"minor", 7},
                              {"fileMode", 0640},
                              {"uid", 0},
                              {"gid", 6}}));
    CHECK(spec["linux"]["resources"]["devices"][0]["access"] == "r");
    CHECK(spec["linux"]["resources"]["devices"][1]["access"] == "rwm");
    REQUIRE(spec["mounts"].size() == 1);
    CHECK(spec["mounts"][0]["source"] == "/tmp");
    CHECK(spec["mounts"][0]["options"] == json({"ro", "nosuid", "rbind"}));
    CHECK(spec["hooks"]["createContainer"] ==
          json::array({{{"path", "/bin/true"}, {"args", {"true", "1"}}}}));
}

TEST_CASE("CDI: a later directory's device counts, two of one directory do not") {
    Node node;
    const auto spec = [](const char* value) {
        return json{{"cdiVersion", "1.0.0"},
                    {"kind", "a.b/c"},
                    {"devices",
                     {{{"name", "d"}, {"containerEdits", {{"env", {std::string("X=") + value}}}}}}}}
            .dump();
    };
    node.write("etc/a.json", spec("static"));
    node.write("run/a.json", spec("dynamic"));
    auto found = node.find({"a.b/c=d"});
    REQUIRE_MESSAGE(found.ok(), message_of(found));
    CHECK(found->front().file == node.dir / "run/a.json");
    CHECK(found->front().edits["env"][0] == "X=dynamic");
    node.write("run/b.json", spec("twice"));
    CHECK(contains(node.refusal("a.b/c=d"), "two specifications"));
}

TEST_CASE("CDI: what is not there is named, with the files that could not be read") {
    Node node;
    node.write("etc/broken.yaml", "kind: [");
    node.write("etc/new.json", R"({"cdiVersion":"9.0.0","kind":"a/b","devices":[]})");
    node.write("etc/nameless.json", R"({"cdiVersion":"0.6.0","kind":"a b/c","devices":[]})");
    REQUIRE(mkfifo((node.dir / "etc/fifo.json").c_str(), 0600) == 0);
    REQUIRE(symlink("/etc/passwd", (node.dir / "etc/out.json").c_str()) == 0);
    std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
    for (int i = 1; i < 12; ++i) {
        const std::string last = "*a" + std::to_string(i - 1);
        bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
        for (int j = 1; j < 10; ++j) {
            bomb += "," + last;
        }
        bomb += "]\n";
    }
    node.write("etc/bomb.yaml", bomb);
    const std::string message = node.refusal("vendor.com/gpu=0");
    for (const char* word : {"config.CDI_devices", "vendor.com/gpu=0", "broken.yaml", "new.json",
                             "9.0.0", "nameless.json", "fifo.json", "bomb.yaml"}) {
        CHECK_MESSAGE(contains(message, word), word);
    }
    for (const char* name : {"", "gpu", "vendor.com/gpu", "vendor.com/gpu=", "/gpu=1", "a/b=../c",
                             "a/b=c\n", "-a/b=c"}) {
        CHECK_MESSAGE(contains(node.refusal(name), "vendor.com/class=device"), name);
    }
    node.directories = {node.dir / "nowhere"};
    CHECK(contains(node.refusal("a/b=c"), "nowhere"));
}

TEST_CASE("CDI: a sandboxed pod gets what its own kernel has, and is told of the rest") {
    const auto apply = [](const json& edits) {
        json spec = container();
        return apply_cdi(
            spec,
            {{"a/b=c", "/etc/cdi/x.json", std::make_shared<const json>(json::object()), edits}},
            Kernel::kSandbox);
    };
    CHECK(apply({{"env", {"A=B"}},
                 {"mounts", {{{"hostPath", "/tmp"}, {"containerPath", "/t"}}}},
                 {"deviceNodes", {{{"path", "/dev/null"}}}}})
              .ok());
    for (const auto& [edits, word] : std::vector<std::pair<json, std::string>>{
             {{{"deviceNodes", {{{"path", "/dev/fuse"}}}}}, "/dev/fuse"},
             {{{"deviceNodes", {{{"path", "/dev/other"}, {"hostPath", "/dev/null"}}}}},
              "/dev/other"},
             {{{"hooks", {{{"hookName", "prestart"}, {"path", "/bin/true"}}}}}, "/bin/true"},
             {{{"intelRdt", {{"closID", "x"}}}}, "intelRdt"},
             {{{"netDevices", {{{"hostInterfaceName", "eth1"}}}}}, "netDevices"},
             {{{"invented", {1}}}, "invented"}}) {
        const Status refused = apply(edits);
        REQUIRE_FALSE(refused.ok());
        CHECK(refused.error().code() == EOPNOTSUPP);
        CHECK_MESSAGE(contains(refused.error().message(), word), refused.error().message());
        CHECK(contains(refused.error().message(), "a/b=c"));
        CHECK(contains(refused.error().message(), "x.json"));
    }
    for (const json& edits :
         std::vector<json>{{{"env", {"A"}}},
                           {{"env", {1}}},
                           {{"env", "A=B"}},
                           {{"deviceNodes", {{{"path", "../x"}}}}},
                           {{"deviceNodes", {{{"path", 7}}}}},
                           {{"mounts", {{{"hostPath", "/no/such"}, {"containerPath", "/t"}}}}},
                           {{"mounts", {{{"hostPath", "/tmp"}, {"containerPath", "/../t"}}}}},
                           {{"hooks", {{{"hookName", "never"}, {"path", "/x"}}}}},
                           {{"additionalGids", {-1}}},
                           {{"additionalGids", {"5"}}}}) {
        const Status refused = apply(edits);
        REQUIRE_MESSAGE(!refused.ok(), edits.dump());
        CHECK_MESSAGE(refused.error().code() == EINVAL, refused.error().message());
    }
}
