#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <set>

#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

namespace {

std::map<std::string, DirEntry> read_all(Gofer& gofer, NodeId node, bool attributes, int* chunks) {
    std::map<std::string, DirEntry> all;
    uint64_t cookie = 0;
    *chunks = 0;
    while (true) {
        const auto chunk = MUST(gofer->read_dir(node, cookie, attributes));
        ++*chunks;
        for (const DirEntry& entry : chunk.entries) {
            CHECK_MESSAGE(all.emplace(entry.name, entry).second, "twice: " << entry.name);
            cookie = entry.cookie;
        }
        if (chunk.end) {
            return all;
        }
    }
}

}  // namespace

TEST_CASE("read_dir: names, numbers, types and attributes") {
    TempDir dir;
    dir.directory("d");
    dir.file("f", "12345");
    dir.link("l", "f");
    Gofer gofer(dir);
    int chunks = 0;
    auto plain = read_all(gofer, gofer.root(), false, &chunks);
    CHECK(plain.size() == 3);
    CHECK(plain["d"].type == DT_DIR);
    CHECK_FALSE(plain["d"].has_attributes);
    auto full = read_all(gofer, gofer.root(), true, &chunks);
    CHECK(chunks == 1);
    CHECK(full.size() == 3);
    CHECK(full["f"].has_attributes);
    CHECK(full["f"].attributes.size == 5);
    CHECK(full["f"].ino == full["f"].attributes.ino);
    CHECK(full["l"].type == DT_LNK);
    CHECK(S_ISLNK(full["l"].attributes.mode));
    CHECK_ERRNO(ENOTDIR, gofer->read_dir(gofer.at("f").id, 0, false));
}

TEST_CASE("read_dir: a large directory in chunks, long names included, and from any cookie again") {
    TempDir dir;
    constexpr int kFiles = 5000;
    for (int i = 0; i < kFiles; i++) {
        std::string name = "file" + std::to_string(i);
        if (i % 50 == 0) {
            name.resize(255, 'x');
        }
        ScopedFd fd(::open((dir / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        REQUIRE(fd.valid());
    }
    Gofer gofer(dir);
    int chunks = 0;
    CHECK(read_all(gofer, gofer.root(), false, &chunks).size() == kFiles);
    CHECK(chunks <= 10);
    CHECK(read_all(gofer, gofer.root(), true, &chunks).size() == kFiles);
    CHECK(chunks <= 25);

    // From the middle of the first chunk on, as lseek() of a guest would have it.
    const auto first = MUST(gofer->read_dir(gofer.root(), 0, false));
    REQUIRE(first.entries.size() > 100);
    const auto middle = MUST(gofer->read_dir(gofer.root(), first.entries[49].cookie, false));
    REQUIRE(middle.entries.size() > 10);
    CHECK(middle.entries[0].name == first.entries[50].name);
}

TEST_CASE("read_dir: many directories read in turns keep few descriptors open") {
    TempDir dir;
    constexpr int kDirectories = 30;
    std::vector<Node> nodes;
    for (int i = 0; i < kDirectories; i++) {
        const std::string name = "d" + std::to_string(i);
        dir.directory(name);
        for (int j = 0; j < 600; j++) {
            ScopedFd fd(::open((dir / name + "/" + std::to_string(j)).c_str(),
                               O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        }
    }
    Gofer gofer(dir);
    std::vector<std::set<std::string>> seen(kDirectories);
    std::vector<uint64_t> cookies(kDirectories, 0);
    for (int i = 0; i < kDirectories; i++) {
        nodes.push_back(gofer.at("d" + std::to_string(i)));
    }
    size_t open = static_cast<size_t>(kDirectories);
    std::vector<bool> ended(kDirectories, false);
    while (open > 0) {
        for (size_t i = 0; i < nodes.size(); i++) {
            if (ended[i]) {
                continue;
            }
            const auto chunk = MUST(gofer->read_dir(nodes[i].id, cookies[i], true));
            for (const auto& entry : chunk.entries) {
                CHECK(seen[i].insert(entry.name).second);
                cookies[i] = entry.cookie;
            }
            if (chunk.end) {
                ended[i] = true;
                open--;
            }
        }
        CHECK(gofer.open_descriptors() < kDirectories + 24);
    }
    for (const auto& names : seen) {
        CHECK(names.size() == 600);
    }
}

TEST_CASE("read_dir: what is removed and made while it is read does not break it") {
    TempDir dir;
    for (int i = 0; i < 2000; i++) {
        dir.file("f" + std::to_string(i));
    }
    Gofer gofer(dir);
    std::set<std::string> names;
    uint64_t cookie = 0;
    while (true) {
        const auto chunk = MUST(gofer->read_dir(gofer.root(), cookie, true));
        for (const auto& entry : chunk.entries) {
            CHECK(names.insert(entry.name).second);
            cookie = entry.cookie;
            CHECK(gofer->unlink(gofer.root(), entry.name).ok());
        }
        if (chunk.end) {
            break;
        }
    }
    CHECK(names.size() == 2000);
    CHECK(MUST(gofer->read_dir(gofer.root(), 0, false)).entries.empty());
}
