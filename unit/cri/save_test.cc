// Images written as archives: the same bytes each time, and the same files when they are loaded.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "cri/base/sha256.h"
#include "cri/images/archive.h"
#include "cri/images/image_config.h"
#include "cri/images/image_store.h"
#include "cri/images/save.h"
#include "unit/cri/tar_builder.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

using namespace moat::cri;
using nlohmann::json;

namespace {

struct Store {
    TempDir dir;
    std::unique_ptr<Database> database;
    std::unique_ptr<ImageStore> images;

    Store() {
        auto opened = Database::open(dir / "db");
        REQUIRE_MESSAGE(opened.ok(), message_of(opened));
        database = std::move(*opened);
        images = std::make_unique<ImageStore>(dir / "images", *database);
        REQUIRE(images->open().ok());
    }
    ImageRecord image(const std::string& name) {
        const auto found = images->find(name);
        REQUIRE_MESSAGE(found.ok(), message_of(found));
        REQUIRE_MESSAGE(found->has_value(), name);
        return **found;
    }
    std::string save(const std::vector<std::string>& names, const std::string& file) {
        const std::string path = dir / file;
        const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        const Status saved = save_images(*images, names, fd);
        close(fd);
        REQUIRE_MESSAGE(saved.ok(), message_of(saved));
        return path;
    }
    void load(const std::string& path) {
        const auto loaded = load_archive(*images, path, "");
        REQUIRE_MESSAGE(loaded.ok(), message_of(loaded));
    }
};

/// Two layers with everything that layers have.
std::string archive_of_all() {
    const std::string base = TarBuilder()
                                 .directory("etc")
                                 .file("etc/kept", "kept\n")
                                 .file("etc/gone", "gone\n")
                                 .directory("opt", 0750)
                                 .file("opt/old", "old\n")
                                 .member('0', "bin/su", "su\n", "", 04755, 7)
                                 .hard_link("bin/also", "bin/su")
                                 .symlink("bin/link", "/etc/../etc/kept")
                                 .member('6', "run/fifo", "", "", 0600)
                                 .file("na\xc3\xafve", "\xc3\xbc\n")
                                 .finish();
    const std::string top = TarBuilder()
                                .file("etc/.wh.gone", "")
                                .file("opt/.wh..wh..opq", "")
                                .file("opt/new", std::string(100'000, 'x'))
                                .hard_link("etc/again", "etc/kept")
                                .finish();
    const std::string config =
        json{{"architecture", "amd64"},
             {"os", "linux"},
             {"config", {{"Cmd", {"/bin/su"}}, {"Labels", {{"a", "b"}}}}},
             {"history", json::array({{{"created_by", "us"}}})},
             {"rootfs", {{"type", "layers"}, {"diff_ids", {Sha256::of(base), Sha256::of(top)}}}}}
            .dump();
    return TarBuilder()
        .file("manifest.json", json::array({{{"Config", "c.json"},
                                             {"RepoTags", {"test/all:1", "test/all:2"}},
                                             {"Layers", {"base.tar", "top.tar"}}}})
                                   .dump())
        .file("c.json", config)
        .file("base.tar", base)
        .file("top.tar", top)
        .finish();
}

/// One line a file: all that a guest could tell.
std::map<std::string, std::string> tree(const std::string& root, const std::string& path = "") {
    std::map<std::string, std::string> found;
    DIR* dir = opendir((root + "/" + path).c_str());
    REQUIRE(dir != nullptr);
    while (const dirent* entry = readdir(dir)) {
        const std::string name = entry->d_name;
        if (name == "." || name == "..") {
            continue;
        }
        const std::string at = path.empty() ? name : path + "/" + name;
        const std::string whole = root + "/" + at;
        struct stat st {};
        REQUIRE(lstat(whole.c_str(), &st) == 0);
        std::string line = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + " " +
                           std::to_string(st.st_gid) + " ";
        if (S_ISREG(st.st_mode)) {
            line += std::to_string(st.st_mtim.tv_sec) + " " +
                    Sha256::of(read_file(whole, 1 << 20).value_or("?"));
            char value[100];
            const ssize_t n = getxattr(whole.c_str(), "user.note", value, sizeof(value));
            line += n > 0 ? std::string(value, static_cast<size_t>(n)) : "";
        } else if (S_ISLNK(st.st_mode)) {
            char target[4096];
            const ssize_t n = readlink(whole.c_str(), target, sizeof(target));
            line += std::string(target, n > 0 ? static_cast<size_t>(n) : 0);
        }
        found[at] = line;
        if (S_ISDIR(st.st_mode)) {
            found.merge(tree(root, at));
        }
    }
    closedir(dir);
    return found;
}

ino_t inode(const std::string& path) {
    struct stat st {};
    REQUIRE(lstat(path.c_str(), &st) == 0);
    return st.st_ino;
}

}  // namespace

TEST_CASE("image save: what is loaded again is the same files, and saved again the same bytes") {
    Store first;
    REQUIRE(write_file(first.dir / "all.tar", archive_of_all()).ok());
    first.load(first.dir / "all.tar");
    const ImageRecord image = first.image("test/all:1");
    // Not every file system has attributes: then there is none on both sides.
    const std::string root = first.images->root_path(image.chain_id);
    (void)setxattr((root + "/etc/kept").c_str(), "user.note", "hello", 5, 0);
    const auto before = tree(root);
    CHECK_FALSE(before.contains("etc/gone"));
    CHECK_FALSE(before.contains("opt/old"));
    CHECK(before.contains("opt/new"));

    const std::string saved = first.save({"test/all:1"}, "one.tar");
    const std::string bytes = read_file(saved, 64 << 20).value_or("");
    CHECK(bytes.size() > 100'000);
    CHECK(read_file(first.save({"test/all:1"}, "two.tar"), 64 << 20).value_or("") == bytes);

    Store second;
    second.load(saved);
    const ImageRecord loaded = second.image("test/all:1");
    CHECK(loaded.tags == std::vector<std::string>{"docker.io/test/all:1"});
    const std::string again = second.images->root_path(loaded.chain_id);
    CHECK(tree(again) == before);
    CHECK(inode(again + "/bin/su") == inode(again + "/bin/also"));
    CHECK(inode(again + "/etc/kept") == inode(again + "/etc/again"));
    const auto config = parse_image_config(loaded.config);
    REQUIRE(config.ok());
    CHECK(config->cmd == std::vector<std::string>{"/bin/su"});
    CHECK(json::parse(loaded.config)["history"] == json::parse(image.config)["history"]);
    struct stat fifo {};
    REQUIRE(lstat((again + "/run/fifo").c_str(), &fifo) == 0);
    CHECK(fifo.st_mtime == 1'700'000'000);  // the archive's, not now
    // From here on it is a fixed point, its id included.
    CHECK(read_file(second.save({"test/all:1"}, "three.tar"), 64 << 20).value_or("") == bytes);
}

TEST_CASE("image save: several references, one copy of what they share") {
    Store first;
    REQUIRE(write_file(first.dir / "all.tar", archive_of_all()).ok());
    first.load(first.dir / "all.tar");
    const ImageRecord image = first.image("test/all:1");
    const std::string one = first.save({"test/all:1"}, "one.tar");
    const std::string both = first.save({image.id}, "both.tar");
    struct stat small {
    }, large{};
    REQUIRE(stat(one.c_str(), &small) == 0);
    REQUIRE(stat(both.c_str(), &large) == 0);
    CHECK(large.st_size < small.st_size + 10'000);
    Store second;
    second.load(both);
    CHECK(second.image("test/all:1").id == second.image("test/all:2").id);
    CHECK(read_file(first.save({"test/all:1", "test/all:2"}, "named.tar"), 64 << 20).value_or("") ==
          read_file(both, 64 << 20).value_or("?"));
}

TEST_CASE("image save: what is not here, and where there is no room") {
    Store store;
    CHECK(save_images(*store.images, {"test/none:1"}, STDERR_FILENO).error().code() == ENOENT);
    REQUIRE(write_file(store.dir / "all.tar", archive_of_all()).ok());
    store.load(store.dir / "all.tar");
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    const Status saved = save_images(*store.images, {"test/all:1"}, full);
    close(full);
    REQUIRE_FALSE(saved.ok());
    CHECK(saved.error().code() == ENOSPC);
    CHECK(contains(saved.error().message(), "write"));
    const auto left = tree(store.dir / "images/tmp");
    CHECK(left.empty());
}

TEST_CASE("image store: a moatd that starts takes no workspace from who makes one beside it") {
    Store store;
    std::atomic<bool> done = false;
    int failed_starts = 0;
    std::thread starter([&] {
        auto database = Database::open(store.dir / "db");
        while (!done) {
            ImageStore beside(store.dir / "images", **database);
            failed_starts += !beside.open().ok();
        }
    });
    int lost = 0;
    for (int i = 0; i < 2000; ++i) {
        const auto workspace = store.images->workspace();
        struct stat st {};
        lost +=
            !workspace.ok() || stat((*workspace)->path().c_str(), &st) != 0 || !S_ISDIR(st.st_mode);
    }
    done = true;
    starter.join();
    CHECK(lost == 0);
    CHECK(failed_starts == 0);
}
