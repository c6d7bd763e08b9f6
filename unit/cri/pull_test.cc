// Pulls from a registry in this process, which also knows how to misbehave.

#include "unit/cri/test.h"

#include <httplib.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "cri/base/sha256.h"
#include "cri/images/manifest.h"
#include "cri/images/puller.h"
#include "unit/cri/tar_builder.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;

namespace {

class Registry {
  public:
    Registry() {
        server_.Get(R"(/v2/(.+)/manifests/(.+))",
                    [this](const httplib::Request& request, httplib::Response& response) {
                        answer(request, response, manifests, request.matches[2]);
                    });
        server_.Get(R"(/v2/(.+)/blobs/(.+))",
                    [this](const httplib::Request& request, httplib::Response& response) {
                        ++blob_requests;
                        if (redirect_blobs) {
                            response.set_redirect("http://localhost:" + std::to_string(port) +
                                                  "/elsewhere/" + std::string(request.matches[2]));
                            return;
                        }
                        answer(request, response, blobs, request.matches[2]);
                    });
        server_.Get(R"(/elsewhere/(.+))", [this](const httplib::Request& request,
                                                 httplib::Response& response) {
            leaked_authorization = leaked_authorization || request.has_header("Authorization");
            answer_body(response, blobs, request.matches[1]);
        });
        server_.Get("/token", [this](const httplib::Request& request, httplib::Response& response) {
            token_scope = request.get_param_value("scope");
            token_login = request.get_header_value("Authorization");
            response.set_content(R"({"token":"secret"})", "application/json");
        });
        port = server_.bind_to_any_port("127.0.0.1");
        thread_ = std::thread([this] { server_.listen_after_bind(); });
    }
    ~Registry() {
        server_.stop();
        thread_.join();
    }

    std::string add_blob(const std::string& data) {
        const std::string digest = Sha256::of(data);
        blobs[digest] = data;
        return digest;
    }
    static std::string descriptor(const std::string& digest, size_t size) {
        return R"({"digest":")" + digest + R"(","size":)" + std::to_string(size) + "}";
    }
    /// An image of these uncompressed layers; returns its manifest's digest.
    std::string add_image(const std::string& tag, const std::vector<std::string>& layers) {
        std::string diff_ids;
        std::string descriptors;
        for (const std::string& layer : layers) {
            const std::string digest = add_blob(layer);
            diff_ids += (diff_ids.empty() ? "\"" : ",\"") + digest + "\"";
            descriptors += (descriptors.empty() ? "" : ",") + descriptor(digest, layer.size());
        }
        config =
            R"({"architecture":")" + host_architecture() +
            R"(","os":"linux","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":[)" +
            diff_ids + "]}}";
        const std::string config_digest = add_blob(config);
        const std::string manifest = R"({"schemaVersion":2,"config":)" +
                                     descriptor(config_digest, config.size()) + R"(,"layers":[)" +
                                     descriptors + "]}";
        manifests[tag] = manifest;
        manifests[Sha256::of(manifest)] = manifest;
        return Sha256::of(manifest);
    }
    std::string host() const { return "127.0.0.1:" + std::to_string(port); }

    std::map<std::string, std::string> manifests;
    std::map<std::string, std::string> blobs;
    std::string config;
    std::atomic<int> blob_requests = 0;
    bool redirect_blobs = false;
    bool wants_token = false;
    std::atomic<bool> leaked_authorization = false;
    std::string token_scope;
    std::string token_login;
    int port = 0;

  private:
    void answer(const httplib::Request& request, httplib::Response& response,
                const std::map<std::string, std::string>& from, const std::string& key) {
        if (wants_token && request.get_header_value("Authorization") != "Bearer secret") {
            response.status = 401;
            response.set_header("WWW-Authenticate",
                                "Bearer realm=\"http://" + host() + "/token\",service=\"reg\"");
            return;
        }
        answer_body(response, from, key);
    }
    static void answer_body(httplib::Response& response,
                            const std::map<std::string, std::string>& from,
                            const std::string& key) {
        const auto it = from.find(key);
        if (it == from.end()) {
            response.status = 404;
            response.set_content(
                R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"not known"}]})",
                "application/json");
            return;
        }
        response.set_content(it->second, "application/octet-stream");
    }

    httplib::Server server_;
    std::thread thread_;
};

struct Store {
    TempDir dir;
    std::unique_ptr<Database> database = std::move(*Database::open(dir / "db"));
    ImageStore images{dir / "images", *database};
    ImagePuller puller;

    explicit Store(std::vector<std::string> mirrors = {})
        : puller(images, RegistryHosts("", mirrors), PullLimits{.retry_base_ms = 5}) {
        REQUIRE(images.open().ok());
    }
    Result<std::string> pull(const std::string& name, const RegistryAuth& auth = {}) {
        return puller.pull(name, auth, [] { return false; });
    }
    /// What is in the store's directories: layers, roots, unfinished work.
    size_t entries(const std::string& name) const {
        size_t count = 0;
        for ([[maybe_unused]] const auto& entry :
             std::filesystem::directory_iterator(dir / ("images/" + name))) {
            ++count;
        }
        return count;
    }
    void check_empty() const {
        // What is removed goes by way of tmp.
        for (int i = 0; i < 1000 && entries("tmp") != 0; i++) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        CHECK(entries("tmp") == 0);
        CHECK(entries("layers") == 0);
        CHECK(entries("roots") == 0);
    }
};

const std::string kLower = TarBuilder().file("a", "lower").file("b", "lower").finish();
const std::string kUpper = TarBuilder().file("b", "upper").file(".wh.a", "").finish();

}  // namespace

TEST_CASE("pull: by tag, by digest, and what the names say afterwards") {
    Registry registry;
    Store store;
    const std::string digest = registry.add_image("1", {kLower, kUpper});
    const auto id = store.pull(registry.host() + "/my/app:1");
    REQUIRE_MESSAGE(id.ok(), message_of(id));
    CHECK(*id == Sha256::of(registry.config));
    const auto image = *store.images.find(registry.host() + "/my/app:1");
    REQUIRE(image.has_value());
    CHECK(image->tags == std::vector<std::string>{registry.host() + "/my/app:1"});
    CHECK(image->digests == std::vector<std::string>{registry.host() + "/my/app@" + digest});
    const std::string root = store.images.root_path(image->chain_id);
    CHECK(read_file(root + "/b", 100).value_or("") == "upper");
    CHECK(access((root + "/a").c_str(), F_OK) != 0);
    CHECK(store.entries("tmp") == 0);
    const int requests = registry.blob_requests;
    REQUIRE(store.pull(registry.host() + "/my/app@" + digest).ok());
    CHECK(registry.blob_requests == requests + 1);  // the configuration; layers are here
    CHECK(store.images.find(id->substr(7, 12))->has_value());
    REQUIRE(store.images.remove(registry.host() + "/my/app:1").ok());
    CHECK(store.images.list()->empty());
    store.check_empty();
}

TEST_CASE("pull: a tag that moves leaves the old image its digest") {
    Registry registry;
    Store store;
    registry.add_image("1", {kLower});
    const auto old_id = store.pull(registry.host() + "/app:1");
    registry.add_image("1", {kLower, kUpper});
    const auto new_id = store.pull(registry.host() + "/app:1");
    REQUIRE(new_id.ok());
    CHECK(*old_id != *new_id);
    CHECK((*store.images.find(registry.host() + "/app:1"))->id == *new_id);
    const auto old_image = *store.images.find(*old_id);
    REQUIRE(old_image.has_value());
    CHECK(old_image->tags.empty());
    CHECK(old_image->digests.size() == 1);
}

TEST_CASE("pull: this machine's entry of a list, under the list's digest") {
    Registry registry;
    Store store;
    const std::string digest = registry.add_image("x", {kLower});
    const std::string list = R"({"schemaVersion":2,"manifests":[{"digest":")" + digest +
                             R"(","size":1,"platform":{"os":"linux","architecture":")" +
                             host_architecture() + R"("}}]})";
    registry.manifests["multi"] = list;
    REQUIRE(store.pull(registry.host() + "/app:multi").ok());
    CHECK((*store.images.find(registry.host() + "/app:multi"))->digests.front() ==
          registry.host() + "/app@" + Sha256::of(list));
}

TEST_CASE("pull: mirrors stand in, and the name stays") {
    Registry registry;
    registry.add_image("3.9", {kLower});
    Store store(
        {"registry.example=http://127.0.0.1:1", "registry.example=http://" + registry.host()});
    const auto id = store.pull("registry.example/pause:3.9");
    REQUIRE_MESSAGE(id.ok(), message_of(id));
    CHECK((*store.images.find("registry.example/pause:3.9"))->tags.front() ==
          "registry.example/pause:3.9");
}

TEST_CASE("pull: wrong bytes are refused by their digest and leave nothing") {
    Registry registry;
    registry.add_image("1", {kLower, kUpper});
    SUBCASE("another layer of the same length") {
        registry.blobs[Sha256::of(kUpper)] = std::string(kUpper.size(), 'x');
    }
    SUBCASE("a layer that is cut off") { registry.blobs[Sha256::of(kUpper)].resize(1000); }
    SUBCASE("a layer that goes on") { registry.blobs[Sha256::of(kUpper)] += "more"; }
    Store store;
    const auto id = store.pull(registry.host() + "/app:1");
    REQUIRE_FALSE(id.ok());
    CHECK(id.error().code() == EBADMSG);
    CHECK(contains(id.error().message(), Sha256::of(kUpper)));
    CHECK(store.images.list()->empty());
    store.check_empty();
}

TEST_CASE("pull: a layer whose contents are not those of the configuration") {
    Registry registry;
    registry.add_image("1", {kLower});
    const std::string other = TarBuilder().file("evil", "x").finish();
    const std::string digest = registry.add_blob(other);
    registry.manifests["1"] =
        R"({"schemaVersion":2,"config":)" +
        Registry::descriptor(Sha256::of(registry.config), registry.config.size()) +
        R"(,"layers":[)" + Registry::descriptor(digest, other.size()) + "]}";
    Store store;
    const auto id = store.pull(registry.host() + "/app:1");
    REQUIRE_FALSE(id.ok());
    CHECK(id.error().code() == EBADMSG);
    store.check_empty();
}

TEST_CASE("pull: a manifest that is not the digest's") {
    Registry registry;
    const std::string digest = registry.add_image("1", {kLower});
    registry.manifests[digest] += " ";
    Store store;
    const auto id = store.pull(registry.host() + "/app@" + digest);
    REQUIRE_FALSE(id.ok());
    CHECK(id.error().code() == EBADMSG);
}

TEST_CASE("pull: a hostile layer is refused by its member and leaves nothing") {
    Registry registry;
    registry.add_image("1", {TarBuilder().file("../../evil", "x").finish()});
    Store store;
    const auto id = store.pull(registry.host() + "/app:1");
    REQUIRE_FALSE(id.ok());
    CHECK(contains(id.error().message(), "../../evil"));
    store.check_empty();
}

TEST_CASE("pull: what is not there, and who does not answer") {
    Registry registry;
    Store store;
    const auto missing = store.pull(registry.host() + "/app:none");
    REQUIRE_FALSE(missing.ok());
    CHECK(missing.error().code() == ENOENT);
    CHECK(contains(missing.error().message(), "MANIFEST_UNKNOWN"));
    CHECK(contains(message_of(store.pull("127.0.0.1:1/app:1")), "127.0.0.1:1"));
}

TEST_CASE("pull: a token is fetched, and a redirect does not get it") {
    Registry registry;
    registry.add_image("1", {kLower});
    registry.wants_token = true;
    registry.redirect_blobs = true;
    Store store;
    const auto id =
        store.pull(registry.host() + "/my/app:1", {.username = "user", .password = "pass"});
    REQUIRE_MESSAGE(id.ok(), message_of(id));
    CHECK(registry.token_scope == "repository:my/app:pull");
    CHECK(registry.token_login == "Basic dXNlcjpwYXNz");
    CHECK_FALSE(registry.leaked_authorization);
}

TEST_CASE("pull: a client that has gone stops the download") {
    Registry registry;
    registry.add_image("1", {kLower});
    Store store;
    const auto id = store.puller.pull(registry.host() + "/app:1", {}, [] { return true; });
    REQUIRE_FALSE(id.ok());
    CHECK(id.error().code() == ECANCELED);
    store.check_empty();
}

TEST_CASE("pull: the same image many times at once is downloaded once") {
    Registry registry;
    registry.add_image("1", {kLower, kUpper});
    Store store;
    std::vector<std::thread> threads;
    std::atomic<int> good = 0;
    for (int i = 0; i < 6; ++i) {
        threads.emplace_back([&] { good += store.pull(registry.host() + "/app:1").ok() ? 1 : 0; });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(good == 6);
    CHECK(registry.blob_requests == 6 + 2);  // six configurations, two layers
    CHECK(store.entries("layers") == 2);
    CHECK(store.entries("tmp") == 0);
}
