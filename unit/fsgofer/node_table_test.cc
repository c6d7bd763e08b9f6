#include "fsgofer/server/node_table.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

namespace {

Attributes file_attributes(uint64_t ino) {
    Attributes a;
    a.ino = ino;
    a.mode = S_IFREG | 0644;
    return a;
}

}  // namespace

TEST_CASE("node table: nodes go with their last hold, parents with their last child") {
    TempDir dir;
    const ScopedFd base(::open("/", O_PATH | O_CLOEXEC));
    NodeTable table(16);
    const auto root = MUST(table.add_root(0, base.get(), dir.path().substr(1)));
    const auto a = MUST(table.see(root, "a", file_attributes(1)));
    const auto b = MUST(table.see(a, "b", file_attributes(2)));
    table.hold(a);
    table.hold(b);
    table.hold(b);
    CHECK(table.size() == 3);
    const NodeId a_id = table.id_of(a);
    const NodeId b_id = table.id_of(b);
    table.release(a, 1);
    CHECK(table.size() == 3);              // b needs it
    CHECK_ERRNO(EBADF, table.find(a_id));  // but the sentry has given it back
    table.release(b, 1);
    CHECK(MUST(table.find(b_id)) == b);
    table.release(b, 1000);
    CHECK(table.size() == 1);
    CHECK_ERRNO(EBADF, table.find(b_id));
    const auto c = MUST(table.see(root, "c", file_attributes(3)));
    table.hold(c);
    CHECK_ERRNO(EBADF, table.find(a_id));
    CHECK_ERRNO(EBADF, table.find(b_id));
    CHECK_ERRNO(EBADF, table.find(0));
    CHECK_ERRNO(EBADF, table.find(UINT64_MAX));
    table.release(root, 1000);  // never goes
    CHECK(table.size() == 2);
}

TEST_CASE("node table: names stay findable through growth, renames and exchanges") {
    TempDir dir;
    const ScopedFd base(::open("/", O_PATH | O_CLOEXEC));
    NodeTable table(16);
    const auto root = MUST(table.add_root(0, base.get(), dir.path().substr(1)));
    std::vector<NodeTable::Index> nodes;
    for (uint64_t i = 0; i < 3000; i++) {
        nodes.push_back(MUST(table.see(root, std::to_string(i), file_attributes(i + 10))));
        table.hold(nodes.back());
    }
    for (uint64_t i = 0; i < 3000; i++) {
        CHECK(table.lookup(root, std::to_string(i)) == nodes[i]);
    }
    table.renamed(root, "7", root, "8");
    CHECK(table.lookup(root, "8") == nodes[7]);
    CHECK(table.lookup(root, "7") == NodeTable::kNone);
    CHECK_ERRNO(ESTALE, table.place(nodes[8]));
    table.exchanged(root, "8", root, "9");
    CHECK(table.lookup(root, "8") == nodes[9]);
    CHECK(table.lookup(root, "9") == nodes[7]);
    table.exchanged(root, "9", root, "unknown");
    CHECK(table.lookup(root, "unknown") == nodes[7]);
    table.unlinked(root, "100");
    CHECK(table.lookup(root, "100") == NodeTable::kNone);
    CHECK(MUST(table.see(root, "200", file_attributes(210))) == nodes[200]);
    CHECK(MUST(table.see(root, "200", file_attributes(9999))) != nodes[200]);
}
