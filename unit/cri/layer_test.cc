#include "unit/cri/test.h"

#include "cri/images/layer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "cri/base/sha256.h"
#include "cri/images/blob_reader.h"
#include "cri/images/tree.h"
#include "unit/cri/tar_builder.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;

namespace {

/// One place to unpack to, with a neighbour that no layer may reach.
struct Place {
    TempDir dir;
    std::string root = dir / "root";
    std::string outside = dir / "outside";

    Place() {
        REQUIRE(make_directories(root).ok());
        REQUIRE(write_file(outside, "untouched").ok());
    }
    Result<UnpackedLayer> unpack(const std::string& blob) {
        REQUIRE(write_file(dir / "blob", blob).ok());
        const auto reader = BlobReader::open(dir / "blob");
        REQUIRE(reader.ok());
        return unpack_layer(**reader, root);
    }
    bool has(const std::string& path) const {
        return faccessat(AT_FDCWD, (root + "/" + path).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    }
    std::string text(const std::string& path) const {
        return read_file(root + "/" + path, 1 << 20).value_or("(none)");
    }
};

/// `comment` goes into the header, with a name, an extra field and the header's checksum.
std::string gzip(const std::string& plain, const std::string& comment = "") {
    z_stream stream{};
    REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    gz_header header{};
    if (!comment.empty()) {
        header.name = header.comment = reinterpret_cast<Bytef*>(const_cast<char*>(comment.c_str()));
        header.extra = header.comment;
        header.extra_len = 3;
        header.hcrc = 1;
        REQUIRE(deflateSetHeader(&stream, &header) == Z_OK);
    }
    std::string out(deflateBound(&stream, plain.size()) + 2 * comment.size() + 20, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
    stream.avail_in = static_cast<uInt>(plain.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

std::string zstd(const std::string& plain) {
    std::string out(ZSTD_compressBound(plain.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 3));
    return out;
}

}  // namespace

TEST_CASE("layer: files, directories, links and modes come out as they went in") {
    Place place;
    const auto layer = place.unpack(TarBuilder()
                                        .directory("./")
                                        .directory("bin", 0711)
                                        .member('0', "bin/tool", "#!", "", 04755)
                                        .symlink("bin/sh", "/bin/tool")
                                        .hard_link("bin/again", "bin/tool")
                                        .finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    struct stat tool {
    }, again{}, bin{};
    REQUIRE(stat((place.root + "/bin/tool").c_str(), &tool) == 0);
    REQUIRE(stat((place.root + "/bin/again").c_str(), &again) == 0);
    REQUIRE(stat((place.root + "/bin").c_str(), &bin) == 0);
    CHECK((tool.st_mode & 07777) == 04755);
    CHECK(tool.st_ino == again.st_ino);
    CHECK((bin.st_mode & 07777) == 0711);
    CHECK(bin.st_mtime == 1700000000);
    char target[64] = {};
    CHECK(readlink((place.root + "/bin/sh").c_str(), target, sizeof(target)) == 9);
    CHECK(layer->usage.inodes == 4);
}

TEST_CASE("layer: gzip, gzip of two members and zstd unpack to the same, with the same diff id") {
    const std::string tar = TarBuilder().file("a", std::string(300'000, 'x')).finish();
    const std::string half = tar.substr(0, 100'000);
    // Longer than the reader's buffer.
    const std::string comment(200'000, 'c');
    for (const std::string& blob :
         {tar, gzip(tar), gzip(half) + gzip(tar.substr(100'000)), gzip(tar, comment),
          gzip(half) + gzip(tar.substr(100'000), comment), zstd(tar),
          zstd(half) + zstd(tar.substr(100'000))}) {
        Place place;
        REQUIRE(write_file(place.dir / "blob", blob).ok());
        const auto reader = BlobReader::open(place.dir / "blob");
        REQUIRE(reader.ok());
        const auto layer = unpack_layer(**reader, place.root);
        REQUIRE_MESSAGE(layer.ok(), message_of(layer));
        CHECK((*reader)->diff_id() == Sha256::of(tar));
        CHECK((*reader)->blob_digest() == Sha256::of(blob));
        CHECK(place.text("a").size() == 300'000);
    }
}

TEST_CASE("layer: a blob that is cut off is an error") {
    std::string noise;
    for (unsigned i = 0, x = 1; i < 200'000; ++i) {
        noise += static_cast<char>((x = x * 1103515245 + 12345) >> 16);
    }
    const std::string tar = TarBuilder().file("a", noise).finish();
    for (const std::string& whole : {tar, gzip(tar), zstd(tar)}) {
        Place place;
        CHECK_FALSE(place.unpack(whole.substr(0, whole.size() / 2)).ok());
    }
    Place place;
    CHECK_FALSE(place.unpack("this is no tar at all, " + std::string(2000, 'x')).ok());
}

TEST_CASE("layer: a gzip stream is refused for its header, its checksum and what is behind it") {
    const std::string tar = TarBuilder().file("a", "text").finish();
    const std::string good = gzip(tar);
    const auto with = [&](size_t at, char value) {
        std::string bad = good;
        bad[at] = value;
        return bad;
    };
    for (const std::string& blob :
         {with(2, 7), with(3, '\x80'), with(good.size() - 8, ~good[good.size() - 8]),
          with(good.size() - 4, ~good[good.size() - 4]), good + "rubbish", good + good.substr(0, 5),
          good.substr(0, good.size() - 1)}) {
        Place place;
        const auto layer = place.unpack(blob);
        CHECK_FALSE(layer.ok());
        CHECK(contains(message_of(layer), "gzip"));
    }
}

TEST_CASE("layer: dot-dot in a name is refused by its name") {
    for (const char* name : {"../outside", "a/../../outside", "..", "a/.."}) {
        Place place;
        const auto layer = place.unpack(TarBuilder().directory("a").file(name, "evil").finish());
        CAPTURE(name);
        CHECK_FALSE(layer.ok());
        CHECK(contains(message_of(layer), ".."));
        CHECK(read_file(place.outside, 100).value_or("") == "untouched");
    }
}

TEST_CASE("layer: absolute names and links lead inside") {
    Place place;
    const auto layer = place.unpack(TarBuilder()
                                        .file("/etc/abs", "1")
                                        .symlink("up", "../..")
                                        .symlink("away", place.dir.path())
                                        .directory("etc2")
                                        .symlink("etc-link", "/etc2")
                                        .file("etc-link/through", "2")
                                        .file("up/escaped", "3")
                                        .finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    CHECK(place.text("etc/abs") == "1");
    CHECK(place.text("etc2/through") == "2");
    CHECK(place.text("escaped") == "3");
    CHECK(access((place.dir / "escaped").c_str(), F_OK) != 0);
}

TEST_CASE("layer: a file through a link to a place outside lands at that place inside") {
    Place place;
    const auto layer = place.unpack(TarBuilder()
                                        .symlink("away", place.dir.path())
                                        .file("away/outside", "evil")
                                        .symlink("up", "../../../../up-there")
                                        .file("up/file", "evil")
                                        .finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    CHECK(read_file(place.outside, 100).value_or("") == "untouched");
    CHECK(place.text(place.dir.path() + "/outside") == "evil");
    CHECK(place.text("up-there/file") == "evil");
}

TEST_CASE("layer: links that lead to one another, or to a file, hold no member") {
    Place round;
    const auto loop =
        round.unpack(TarBuilder().symlink("a", "b").symlink("b", "a").file("a/x", "evil").finish());
    CHECK_FALSE(loop.ok());
    Place place;
    const auto file = place.unpack(TarBuilder().file("a", "file").file("a/x", "evil").finish());
    CHECK_FALSE(file.ok());
    CHECK(contains(message_of(file), "a/x"));
}

TEST_CASE("stack: a file through a link of a lower layer goes where that leads") {
    Place lower;
    Place upper;
    Place merged;
    const auto below = lower.unpack(TarBuilder()
                                        .directory("usr/lib", 0750)
                                        .file("usr/lib/old", "old")
                                        .symlink("lib", "usr/lib")
                                        .finish());
    REQUIRE_MESSAGE(below.ok(), message_of(below));
    // The upper layer has its own link in one place, none in the other.
    const auto above = upper.unpack(TarBuilder()
                                        .file("lib/new", "new")
                                        .file("lib/sub/leaf", "leaf")
                                        .symlink("also", "usr/lib")
                                        .file("also/more", "more")
                                        .finish());
    REQUIRE_MESSAGE(above.ok(), message_of(above));
    const auto usage =
        stack_layers({{lower.root, below->changes}, {upper.root, above->changes}}, merged.root);
    REQUIRE_MESSAGE(usage.ok(), message_of(usage));
    CHECK(merged.text("usr/lib/old") == "old");
    CHECK(merged.text("usr/lib/new") == "new");
    CHECK(merged.text("usr/lib/sub/leaf") == "leaf");
    CHECK(merged.text("usr/lib/more") == "more");
    struct stat st {};
    REQUIRE(lstat((merged.root + "/lib").c_str(), &st) == 0);
    CHECK(S_ISLNK(st.st_mode));
    REQUIRE(stat((merged.root + "/usr/lib").c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0750);
}

TEST_CASE("layer: a file over a link replaces the link and not its target") {
    Place place;
    const auto layer =
        place.unpack(TarBuilder().symlink("x", place.outside).file("x", "mine").finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    CHECK(place.text("x") == "mine");
    CHECK(read_file(place.outside, 100).value_or("") == "untouched");
}

TEST_CASE("layer: a hard link cannot take in a file of the node") {
    Place place;
    const auto through = place.unpack(TarBuilder()
                                          .symlink("away", place.dir.path())
                                          .hard_link("stolen", "away/outside")
                                          .finish());
    // Resolved inside the root the target does not exist, so it would have to be in a lower layer.
    REQUIRE(through.ok());
    CHECK_FALSE(place.has("stolen"));
    CHECK(through->changes.links.size() == 1);
    Place second;
    CHECK_FALSE(second.unpack(TarBuilder().hard_link("stolen", "../outside").finish()).ok());
}

TEST_CASE("layer: device nodes are left out, FIFOs are not") {
    Place place;
    const auto layer = place.unpack(
        TarBuilder().member('3', "null").member('4', "disk").member('6', "fifo").finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    CHECK_FALSE(place.has("null"));
    CHECK_FALSE(place.has("disk"));
    CHECK(place.has("fifo"));
}

TEST_CASE("layer: names that are too deep or too long are refused") {
    CHECK_FALSE(clean_member_name(std::string(300, 'a')).ok());
    std::string deep;
    for (int i = 0; i < 300; ++i) {
        deep += "a/";
    }
    CHECK_FALSE(clean_member_name(deep).ok());
    CHECK(clean_member_name("./a//b/./c/").value_or("") == "a/b/c");
    CHECK(clean_member_name("/").value_or("x").empty());
}

TEST_CASE("layer: whiteouts are written down, and survive their encoding") {
    Place place;
    const auto layer = place.unpack(TarBuilder()
                                        .file("a/.wh.gone", "")
                                        .file("b/.wh..wh..opq", "")
                                        .file(".wh..wh.plnk", "")
                                        .file("c/d", "x")
                                        .finish());
    REQUIRE_MESSAGE(layer.ok(), message_of(layer));
    CHECK(layer->changes.whiteouts == std::vector<std::string>{"a/gone"});
    CHECK(layer->changes.opaque == std::vector<std::string>{"b"});
    CHECK(layer->changes.implied == std::vector<std::string>{"c"});
    CHECK_FALSE(place.has("a"));
    const auto again = decode_changes(encode_changes(layer->changes));
    REQUIRE(again.ok());
    CHECK(again->whiteouts == layer->changes.whiteouts);
    CHECK(again->opaque == layer->changes.opaque);
    CHECK_FALSE(place.unpack(TarBuilder().file(".wh...", "").finish()).ok());
}

TEST_CASE("stack: upper layers hide, replace and add") {
    Place lower;
    Place upper;
    Place merged;
    REQUIRE(lower
                .unpack(TarBuilder()
                            .directory("usr/lib")
                            .symlink("lib", "usr/lib")
                            .file("gone", "1")
                            .file("dir/gone", "1")
                            .file("dir/stays", "1")
                            .file("opaque/old", "1")
                            .file("becomes-dir", "1")
                            .directory("becomes-file/x")
                            .file("kept", "shared")
                            .finish())
                .ok());
    const auto changes = upper.unpack(TarBuilder()
                                          .file(".wh.gone", "")
                                          .file("dir/.wh.gone", "")
                                          .file("opaque/.wh..wh..opq", "")
                                          .file("opaque/new", "2")
                                          .file("becomes-dir/in", "2")
                                          .file("becomes-file", "2")
                                          .file("lib/so", "2")
                                          .hard_link("link", "kept")
                                          .file(".wh.never-was", "")
                                          .finish());
    REQUIRE_MESSAGE(changes.ok(), message_of(changes));
    const auto usage =
        stack_layers({{lower.root, {}}, {upper.root, changes->changes}}, merged.root);
    REQUIRE_MESSAGE(usage.ok(), message_of(usage));
    CHECK_FALSE(merged.has("gone"));
    CHECK_FALSE(merged.has("dir/gone"));
    CHECK(merged.text("dir/stays") == "1");
    CHECK_FALSE(merged.has("opaque/old"));
    CHECK(merged.text("opaque/new") == "2");
    CHECK(merged.text("becomes-dir/in") == "2");
    CHECK(merged.text("becomes-file") == "2");
    CHECK(merged.text("usr/lib/so") == "2");
    CHECK(merged.text("link") == "shared");
    struct stat kept {
    }, original{};
    REQUIRE(stat((merged.root + "/kept").c_str(), &kept) == 0);
    REQUIRE(stat((lower.root + "/kept").c_str(), &original) == 0);
    CHECK(kept.st_ino == original.st_ino);
    // What was below is as it was.
    CHECK(lower.text("gone") == "1");
    CHECK(lower.text("opaque/old") == "1");
}

TEST_CASE("stack: a whiteout through a link of a lower layer stays inside") {
    Place lower;
    Place merged;
    REQUIRE(lower.unpack(TarBuilder().symlink("away", lower.dir.path()).finish()).ok());
    LayerChanges changes;
    changes.whiteouts = {"away/outside"};
    changes.opaque = {"away"};
    Place empty;
    REQUIRE(stack_layers({{lower.root, {}}, {empty.root, changes}}, merged.root).ok());
    CHECK(read_file(lower.outside, 100).value_or("") == "untouched");
}

TEST_CASE("stack: a hard link to what no layer has names both ends") {
    Place empty;
    Place merged;
    LayerChanges changes;
    changes.links = {{"new", "missing"}};
    const auto usage = stack_layers({{empty.root, changes}}, merged.root);
    CHECK_FALSE(usage.ok());
    CHECK(contains(message_of(usage), "new"));
    CHECK(contains(message_of(usage), "missing"));
}
