#include "unit/kernel/fs/vfs/harness.h"

#include <algorithm>

#include "kernel/mm/address_space.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel::test {

namespace {

template <typename R>
int error_of(const R& result) {
    return result.ok() ? 0 : result.error().value();
}

class Names final : public DirectorySink {
  public:
    bool add(std::string_view name, uint64_t, uint8_t, int64_t) override {
        if (name != "." && name != "..") {
            names.emplace_back(name);
        }
        return true;
    }
    std::vector<std::string> names;
};

}  // namespace

World::World() : World(TmpfsFileSystem::create({})) {}

World::World(RefPtr<FileSystem> root)
    : mounts_(MountNamespace::create(std::move(root), 0, "root")) {
    auto group = make_ref<ThreadGroup>();
    for (int i = 0; i < static_cast<int>(RLIM_NLIMITS); i++) {
        group->set_limit(i, {RLIM_INFINITY, RLIM_INFINITY});
    }
    task_ = make_ref<Task>(group, 1);
    task_->set_fs(make_ref<FsContext>(mounts_, mounts_->root(), mounts_->root(), 022));
    task_->set_fds(make_ref<FdTable>());
    become_root();
}

void World::become(uint32_t uid, uint32_t gid) {
    auto who = make_ref<Credentials>();
    who->uid = who->euid = who->suid = who->fsuid = uid;
    who->gid = who->egid = who->sgid = who->fsgid = gid;
    task_->set_credentials(who);
}

void World::become_root() {
    auto who = make_ref<Credentials>();
    who->permitted = who->effective = who->bounding = ~0ull;
    task_->set_credentials(who);
}

int World::mkdir(const std::string& path, uint32_t mode) {
    return error_of(make_directory(*task_, kCwd, path, mode));
}
int World::symlink(const std::string& target, const std::string& path) {
    return error_of(make_symlink(*task_, target, kCwd, path));
}
int World::unlink(const std::string& path) { return error_of(unlink_at(*task_, kCwd, path)); }
int World::rmdir(const std::string& path) {
    return error_of(remove_directory_at(*task_, kCwd, path));
}
int World::rename(const std::string& from, const std::string& to, uint32_t flags) {
    return error_of(rename_at(*task_, kCwd, from, kCwd, to, flags));
}
int World::link(const std::string& from, const std::string& to) {
    return error_of(make_link(*task_, kCwd, from, kCwd, to, 0));
}
int World::chmod(const std::string& path, uint32_t mode) {
    const auto at = resolve(*task_, kCwd, path);
    return at.ok() ? error_of(change_mode(*task_, *at, mode)) : at.error().value();
}
int World::chown(const std::string& path, uint32_t uid, uint32_t gid) {
    const auto at = resolve(*task_, kCwd, path);
    return at.ok() ? error_of(change_owner(*task_, *at, uid, gid)) : at.error().value();
}
int World::stat_error(const std::string& path, int flags) {
    return error_of(stat_at(*task_, kCwd, path, flags));
}
struct stat World::stat(const std::string& path, int flags) {
    auto st = stat_at(*task_, kCwd, path, flags);
    REQUIRE_MESSAGE(st.ok(), path);
    return *st;
}

int World::open_error(const std::string& path, uint32_t flags, uint32_t mode) {
    const auto how = OpenHow::from_open(flags, mode);
    return how.ok() ? error_of(open_at(*task_, kCwd, path, *how)) : how.error().value();
}

RefPtr<File> World::open(const std::string& path, uint32_t flags, uint32_t mode) {
    auto file = open_at(*task_, kCwd, path, *OpenHow::from_open(flags, mode));
    REQUIRE_MESSAGE(file.ok(), path << ": " << error_of(file));
    return *file;
}

void World::write_file(const std::string& path, const std::string& text) {
    RefPtr<File> file = open(path, O_WRONLY | O_CREAT | O_TRUNC);
    REQUIRE(write_some(*this, *file, text) == text.size());
}

std::string World::read_file(const std::string& path) {
    RefPtr<File> file = open(path);
    return read_some(*this, *file, 1 << 20);
}

std::vector<std::string> World::list(const std::string& path) {
    RefPtr<File> file = open(path, O_RDONLY | O_DIRECTORY);
    Names names;
    REQUIRE(file->read_directory(*task_, names).ok());
    std::sort(names.names.begin(), names.names.end());
    return names.names;
}

std::string World::cwd() { return path_text(task_->fs().cwd(), task_->fs().root()); }

int World::chdir(const std::string& path) {
    auto at = resolve(*task_, kCwd, path, kDirectory);
    if (!at.ok()) {
        return at.error().value();
    }
    task_->fs().set_cwd(*at);
    return 0;
}

std::string read_some(World& world, File& file, size_t size) {
    std::string text(size, '\0');
    IoBuffer buffer = IoBuffer::sentry(text.data(), size);
    auto n = file.read(world.task(), buffer);
    REQUIRE(n.ok());
    text.resize(*n);
    return text;
}

size_t write_some(World& world, File& file, const std::string& text) {
    IoBuffer buffer = IoBuffer::sentry(static_cast<const void*>(text.data()), text.size());
    auto n = file.write(world.task(), buffer);
    REQUIRE_MESSAGE(n.ok(), error_of(n));
    return *n;
}

}  // namespace moat::kernel::test
