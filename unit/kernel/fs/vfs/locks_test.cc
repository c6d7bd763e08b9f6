#include "unit/kernel/fs/vfs/harness.h"

#include "kernel/fs/file_locks.h"
#include "kernel/fs/inode_extras.h"

using namespace moat;
using namespace moat::kernel;

namespace {

FileLock lock_of(const void* owner, bool exclusive, int64_t start, int64_t end) {
    FileLock lock;
    lock.owner = owner;
    lock.exclusive = exclusive;
    lock.start = start;
    lock.end = end;
    return lock;
}

}  // namespace

TEST_CASE("record locks: conflict, split, join") {
    FileLocks locks;
    int a, b;
    CHECK(locks.acquire(lock_of(&a, true, 0, 99), false).ok());
    CHECK(locks.acquire(lock_of(&b, true, 50, 60), false).error() == EAGAIN);
    CHECK(locks.acquire(lock_of(&b, false, 100, 200), false).ok());
    CHECK(locks.acquire(lock_of(&a, false, 150, 160), false).ok());
    locks.release(&a, 40, 49);
    CHECK(locks.acquire(lock_of(&b, true, 40, 49), false).ok());
    CHECK(locks.acquire(lock_of(&b, true, 39, 39), false).error() == EAGAIN);
    CHECK(locks.acquire(lock_of(&b, true, 50, 50), false).error() == EAGAIN);
    locks.release_owner(&a);
    CHECK(locks.acquire(lock_of(&b, true, 0, INT64_MAX), false).ok());
    CHECK(locks.snapshot().size() == 1);
    locks.release(&b, 0, INT64_MAX);
    CHECK(locks.empty());
    CHECK(locks.acquire(lock_of(&a, true, 0, 9), false).ok());
    CHECK(locks.acquire(lock_of(&a, true, 10, 19), false).ok());
    CHECK(locks.snapshot().size() == 1);  // joined
    CHECK(locks.acquire(lock_of(&a, false, 5, 14), false).ok());
    CHECK(locks.snapshot().size() == 3);
    const auto conflict = locks.find_conflict(lock_of(&b, false, 0, 100));
    REQUIRE(conflict.has_value());
    CHECK(conflict->exclusive);
}

TEST_CASE("record locks: two owners that wait for each other are told") {
    FileLocks first, second;
    int a, b;
    CHECK(first.acquire(lock_of(&a, true, 0, 9), true).ok());
    CHECK(second.acquire(lock_of(&b, true, 0, 9), true).ok());
    CHECK(second.acquire(lock_of(&a, true, 0, 9), true).error() == EAGAIN);  // a waits for b
    CHECK(first.acquire(lock_of(&b, true, 0, 9), true).error() == EDEADLK);
    forget_lock_wait(&a);
    CHECK(first.acquire(lock_of(&b, true, 0, 9), true).error() == EAGAIN);
    forget_lock_wait(&b);
}

TEST_CASE("flock: shared, exclusive, converted") {
    FileLocks locks;
    int a, b;
    CHECK(locks.acquire_whole(lock_of(&a, false, 0, 0)).ok());
    CHECK(locks.acquire_whole(lock_of(&b, false, 0, 0)).ok());
    CHECK(locks.acquire_whole(lock_of(&a, true, 0, 0)).error() == EAGAIN);
    locks.release_whole(&b);
    CHECK(locks.acquire_whole(lock_of(&a, true, 0, 0)).ok());
    CHECK(locks.acquire_whole(lock_of(&b, false, 0, 0)).error() == EAGAIN);
}

TEST_CASE("flock: ends with the last reference to the description") {
    test::World w;
    w.write_file("/f", "x");
    RefPtr<File> file = w.open("/f");
    FileLocks& locks = file->path().dentry()->inode()->extras().locks();
    CHECK(locks.acquire_whole(lock_of(file.get(), true, 0, 0)).ok());
    file->note_locked();
    CHECK_FALSE(locks.empty());
    RefPtr<Dentry> keep = file->path().dentry_ref();
    file.reset();
    CHECK(locks.empty());
}
