#include <signal.h>
#include <sys/mman.h>

#include <algorithm>

#include "kernel/fs/gofer/gofer.h"
#include "kernel/fs/loader.h"
#include "kernel/fs/overlay/overlay.h"
#include "kernel/fs/registry.h"
#include "unit/fsgofer/harness.h"

#include "unit/kernel/fs/vfs/harness.h"  // last: settles which CHECK is meant

using namespace moat;
using namespace moat::kernel;
using gofer::test::Gofer;
using gofer::test::TempDir;
using moat::kernel::test::World;
using Names = std::vector<std::string>;

namespace {

std::shared_ptr<gofer::Client> borrow(Gofer& gofer) {
    return {&gofer.client(), [](gofer::Client*) {}};
}

RefPtr<FileSystem> mount_of(Gofer& gofer, GoferSharing sharing) {
    return *GoferFileSystem::create(borrow(gofer), 0, sharing);
}

void fill(const TempDir& host) {
    host.directory("a");
    host.directory("a/b");
    host.file("a/b/f", "deep");
    host.file("hello", "hello world");
    host.link("link", "a/b/f");
}

}  // namespace

TEST_CASE("gofer: the host's files are read, and listed, and mapped") {
    TempDir host;
    fill(host);
    Gofer server(host);
    World w(mount_of(server, GoferSharing::kExclusive));
    CHECK(w.read_file("/a/b/f") == "deep");
    CHECK(w.read_file("/link") == "deep");
    CHECK(w.list("/") == Names{"a", "hello", "link"});
    CHECK(w.stat_error("/nothing") == ENOENT);
    CHECK(w.stat_error("/hello/x") == ENOTDIR);
    CHECK(w.stat("/hello").st_size == 11);
    const MapSource source = *w.open("/hello")->map_source(w.task(), PROT_READ, false);
    char bytes[5];
    CHECK(pread(source.host_fd, bytes, 5, 6) == 5);
    CHECK(std::string(bytes, 5) == "world");
}

TEST_CASE("gofer: what is written reaches the host") {
    TempDir host;
    fill(host);
    Gofer server(host);
    World w(mount_of(server, GoferSharing::kExclusive));
    w.write_file("/new", "made by the guest");
    CHECK(host.read("new") == "made by the guest");
    w.write_file("/hello", "changed");
    CHECK(host.read("hello") == "changed");
    CHECK(w.stat("/hello").st_size == 7);
    RefPtr<File> log = w.open("/new", O_WRONLY | O_APPEND);
    test::write_some(w, *log, ", twice");
    CHECK(host.read("new") == "made by the guest, twice");
    CHECK(w.stat("/new").st_size == 24);
    CHECK(w.mkdir("/d") == 0);
    CHECK(w.rename("/new", "/d/moved") == 0);
    CHECK(w.rename("/a", "/d/a") == 0);
    CHECK(w.read_file("/d/a/b/f") == "deep");
    CHECK(host.read("d/a/b/f") == "deep");
    CHECK(w.link("/hello", "/again") == 0);
    CHECK(w.stat("/hello").st_nlink == 2);
    CHECK(w.symlink("hello", "/s") == 0);
    CHECK(w.read_file("/s") == "changed");
    RefPtr<File> open = w.open("/hello");
    CHECK(w.unlink("/hello") == 0);
    CHECK(w.unlink("/again") == 0);
    CHECK(test::read_some(w, *open, 100) == "changed");
    CHECK(w.stat_error("/hello") == ENOENT);
    CHECK(w.rmdir("/d") == ENOTEMPTY);
    CHECK(w.chmod("/d", 0700) == 0);
    CHECK((w.stat("/d").st_mode & 0777) == 0700);
    CHECK(w.list("/") == Names{"d", "link", "s"});
    RefPtr<File> cut = w.open("/d/moved", O_RDWR);
    CHECK(cut->truncate(w.task(), 4).ok());
    CHECK(host.read("d/moved") == "made");
}

TEST_CASE("gofer: a shared mount shows what the host does meanwhile") {
    TempDir host;
    fill(host);
    Gofer server(host);
    World w(mount_of(server, GoferSharing::kShared));
    CHECK(w.stat_error("/later") == ENOENT);
    host.file("later", "now");
    CHECK(w.read_file("/later") == "now");
    host.file("later", "and longer");
    CHECK(w.read_file("/later") == "and longer");
    CHECK(w.stat("/later").st_size == 10);
    host.file("other", "another file");
    REQUIRE(::rename((host / "other").c_str(), (host / "later").c_str()) == 0);
    CHECK(w.read_file("/later") == "another file");
    REQUIRE(::unlink((host / "later").c_str()) == 0);
    CHECK(w.stat_error("/later") == ENOENT);
    CHECK(w.open_error("/later", O_RDONLY) == ENOENT);
}

TEST_CASE("gofer: listing a directory makes the attributes below it free") {
    TempDir host;
    host.directory("many");
    for (int i = 0; i < 300; i++) {
        host.file("many/f" + std::to_string(i), std::string(static_cast<size_t>(i), 'x'));
    }
    Gofer server(host);
    RefPtr<FileSystem> fs = mount_of(server, GoferSharing::kExclusive);
    World w(fs);
    CHECK(w.list("/many").size() == 300);
    // With the server gone, only what is known can be answered.
    kill(server.pid(), SIGSTOP);
    CHECK(w.stat("/many/f17").st_size == 17);
    CHECK(w.stat("/many/f299").st_size == 299);
    CHECK(w.stat_error("/many/none") == ENOENT);
    CHECK(w.list("/many").size() == 300);
    kill(server.pid(), SIGCONT);
    CHECK(w.read_file("/many/f3") == "xxx");
}

TEST_CASE("gofer: under an overlay the host's file is untouched") {
    TempDir host;
    fill(host);
    Gofer::Options options;
    options.flags = gofer::kMountReadOnly;
    Gofer server(host, options);
    World w(OverlayFileSystem::create(TmpfsFileSystem::create({}),
                                      {mount_of(server, GoferSharing::kExclusive)}));
    CHECK(w.read_file("/a/b/f") == "deep");
    w.write_file("/a/b/f", "written");
    w.write_file("/a/b/g", "new");
    CHECK(w.unlink("/hello") == 0);
    CHECK(w.read_file("/a/b/f") == "written");
    CHECK(w.read_file("/link") == "written");
    CHECK(w.list("/a/b") == Names{"f", "g"});
    CHECK(w.list("/") == Names{"a", "link"});
    CHECK(host.read("a/b/f") == "deep");
    CHECK(host.read("hello") == "hello world");
}

TEST_CASE("loader: a container's tree, mount points made on the way") {
    TempDir host;
    fill(host);
    host.directory("var");
    host.link("var/run", "/run");
    TempDir volume;
    volume.file("data", "of the host");
    Gofer::Options options;
    options.flags = gofer::kMountReadOnly;
    gofer::ServedMount served;
    const ScopedFd parent(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    served.directory = parent.get();
    served.name = volume.path().substr(1);
    served.destination = "/data";
    options.more.push_back(served);
    Gofer server(host, options);
    register_vfs();

    control::ContainerPlan plan;
    plan.id = "test";
    plan.root.read_only = true;
    const auto add = [&](std::string type, std::string destination) -> control::MountPlan& {
        control::MountPlan mount;
        mount.type = std::move(type);
        mount.destination = std::move(destination);
        plan.mounts.push_back(mount);
        return plan.mounts.back();
    };
    add("tmpfs", "/run").options = {"size=1m", "nosuid", "mode=755"};
    add("gofer", "/srv/deep/data").gofer_mount = 1;
    control::MountPlan& shared = add("shared", "/var/run/shared");
    shared.source = "pod";
    plan.masked_paths = {"/a/b", "/missing", "/hello"};
    plan.readonly_paths = {"/srv"};
    SharedVolumes volumes;
    auto built = build_mounts(plan, borrow(server), volumes, nullptr);
    REQUIRE_MESSAGE(built.ok(), (built.ok() ? "" : built.error().message()));

    World w;
    w.task().fs().set_mounts(*built);
    w.task().fs().set_root((*built)->root());
    w.task().fs().set_cwd((*built)->root());
    CHECK(w.read_file("/srv/deep/data/data") == "of the host");
    CHECK(w.stat_error("/run/shared") == 0);
    w.write_file("/run/shared/x", "1");
    CHECK(w.open_error("/new", O_CREAT | O_WRONLY) == EROFS);
    CHECK(w.mkdir("/srv/x") == EROFS);
    CHECK(w.list("/a/b").empty());
    CHECK(w.read_file("/hello").empty());
    CHECK(host.read("hello") == "hello world");

    add("nosuchfs", "/x");
    auto refused = build_mounts(plan, borrow(server), volumes, nullptr);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().message().find("mount nosuchfs at /x") != std::string::npos);
}
