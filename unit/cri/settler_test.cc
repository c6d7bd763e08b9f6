// What a power cut takes of the images, and that their trees go behind their removal.

#include "cri/images/settler.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cri/images/trash.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

using namespace moat::cri;

namespace {

int64_t count(Database& database, const std::string& query) {
    int64_t n = -1;
    REQUIRE(database.query(query, [&](const Row& row) { n = row.integer(0); }).ok());
    return n;
}

/// An image of one layer of its own, whose three rows have these marks.
void add(Database& database, const std::string& name, const std::string& layer,
         const std::string& rest) {
    REQUIRE(database
                .run("INSERT INTO layers (diff_id, bytes, inodes, unsynced) VALUES (?,1,1,?)",
                     "layer-" + name, layer)
                .ok());
    REQUIRE(database
                .run("INSERT INTO roots (chain_id, diff_ids, bytes, inodes, unsynced)"
                     " VALUES (?,?,1,1,?)",
                     "root-" + name, "[\"layer-" + name + "\"]", rest)
                .ok());
    REQUIRE(database
                .run("INSERT INTO images (id, chain_id, size, config, created_at, unsynced)"
                     " VALUES (?,?,1,'{}',1,?)",
                     name, "root-" + name, rest)
                .ok());
}

}  // namespace

TEST_CASE("images: what another boot left unsynced is forgotten, and what stands on it") {
    const TempDir dir;
    auto database = Database::open(dir / "db");
    REQUIRE_MESSAGE(database.ok(), message_of(database));
    {
        Settler settler(dir / ".", **database);
        add(**database, "settled", "", "");
        add(**database, "pulled", settler.mark(), settler.mark());
        add(**database, "lost", "another boot", "another boot");
        add(**database, "footless", "another boot", "");
        CHECK(settler.discard_lost().ok());
        CHECK(count(**database, "SELECT COUNT(*) FROM images") == 2);
        CHECK(count(**database, "SELECT COUNT(*) FROM images WHERE id IN ('settled','pulled')") ==
              2);
        CHECK(count(**database, "SELECT COUNT(*) FROM roots") == 2);
        CHECK(count(**database, "SELECT COUNT(*) FROM layers") == 2);
        settler.settle();  // some time later, and not at the end
        CHECK(settler.settle_now().ok());
    }
    CHECK(count(**database, "SELECT COUNT(*) FROM layers WHERE unsynced<>''") == 0);
    CHECK(count(**database, "SELECT COUNT(*) FROM roots WHERE unsynced<>''") == 0);
    CHECK(count(**database, "SELECT COUNT(*) FROM images WHERE unsynced<>''") == 0);
    Settler next(dir / ".", **database);
    CHECK(next.discard_lost().ok());
    CHECK(count(**database, "SELECT COUNT(*) FROM images") == 2);
}

TEST_CASE("trash: a name is free at once, and nothing is left in the end") {
    const TempDir dir;
    REQUIRE(make_directories(dir / "tmp").ok());
    {
        Trash trash(dir / "tmp");
        for (int round = 0; round < 3; round++) {
            REQUIRE(make_directories(dir / "layer/deep/deeper").ok());
            REQUIRE(write_file(dir / "layer/deep/file", "x").ok());
            CHECK(trash.take(dir / "layer").ok());
            CHECK(access((dir / "layer").c_str(), F_OK) != 0);
        }
        CHECK(trash.wait_empty(std::chrono::seconds(30)));
        CHECK((rmdir((dir / "tmp").c_str()) == 0 && mkdir((dir / "tmp").c_str(), 0755) == 0));
        CHECK(trash.take(dir / "layer").ok());  // nothing there
    }
    CHECK(rmdir((dir / "tmp").c_str()) == 0);
}
