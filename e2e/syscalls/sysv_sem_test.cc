// semget(2), semop(2), semtimedop(2), semctl(2).

#include <signal.h>
#include <sys/sem.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

union Argument {
    int val;
    semid_ds* buf;
    unsigned short* array;
    seminfo* info;
};

/// A set that is removed at the end.
class Set {
  public:
    explicit Set(int count, key_t key = IPC_PRIVATE, int flags = IPC_CREAT | 0600)
        : id_(::semget(key, count, flags)) {
        if (id_ < 0) {
            fatal("semget: " + errno_name(errno));
        }
    }
    ~Set() { ::semctl(id_, 0, IPC_RMID); }
    int id() const { return id_; }
    int get(int number, int what = GETVAL) const { return ::semctl(id_, number, what); }
    int set(int number, int value) const { return ::semctl(id_, number, SETVAL, Argument{value}); }
    int operate(std::vector<sembuf> operations) const {
        return ::semop(id_, operations.data(), operations.size());
    }

  private:
    int id_;
};

sembuf op(int number, int amount, int flags = 0) {
    return {static_cast<unsigned short>(number), static_cast<short>(amount),
            static_cast<short>(flags)};
}

key_t unused_key() {
    for (key_t key = 0x6d700000 + ::getpid();; key += 0x10000) {
        if (::semget(key, 0, 0) < 0 && errno == ENOENT) {
            return key;
        }
    }
}

TEST_CASE("sem: values are set, read and changed") {
    const Set set(3);
    CHECK(set.get(0) == 0);
    CHECK_THAT(set.set(1, 5), succeeds());
    CHECK_THAT(set.operate({op(1, -2), op(2, 7)}), succeeds());
    CHECK(set.get(1) == 3);
    CHECK(set.get(2) == 7);
    CHECK(set.get(1, GETPID) == ::getpid());
    CHECK(set.get(0, GETPID) == 0);
    unsigned short values[3] = {10, 20, 30};
    CHECK_THAT(::semctl(set.id(), 0, SETALL, Argument{.array = values}), succeeds());
    unsigned short now[3] = {};
    CHECK_THAT(::semctl(set.id(), 0, GETALL, Argument{.array = now}), succeeds());
    CHECK(now[0] == 10);
    CHECK(now[2] == 30);
    semid_ds ds{};
    CHECK_THAT(::semctl(set.id(), 0, IPC_STAT, Argument{.buf = &ds}), succeeds());
    CHECK(ds.sem_nsems == 3);
    CHECK(ds.sem_otime != 0);
    CHECK((ds.sem_perm.mode & 0777) == 0600);
}

TEST_CASE("sem: all operations happen or none does") {
    const Set set(2);
    set.set(0, 1);
    CHECK_THAT(set.operate({op(0, -1), op(1, -1, IPC_NOWAIT)}), fails_with(EAGAIN));
    CHECK(set.get(0) == 1);
    // The same one twice: in their order.
    CHECK_THAT(set.operate({op(0, -1), op(0, 3), op(0, -2)}), succeeds());
    CHECK(set.get(0) == 1);
    CHECK_THAT(set.operate({op(0, 0, IPC_NOWAIT)}), fails_with(EAGAIN));
    CHECK_THAT(set.operate({op(1, 0, IPC_NOWAIT), op(0, 1)}), succeeds());
    CHECK(set.get(0) == 2);
}

TEST_CASE("sem: a taker sleeps until there is enough") {
    const Set set(1);
    Child child([&] { CHILD_THAT(set.operate({op(0, -3)}), succeeds()); });
    wait_until_blocked(child.pid());
    CHECK(set.get(0, GETNCNT) == 1);
    CHECK(set.get(0, GETZCNT) == 0);
    CHECK_THAT(set.operate({op(0, 2)}), succeeds());
    CHECK(child.running());
    CHECK_THAT(set.operate({op(0, 2)}), succeeds());
    // Taken on the sleeper's behalf at once.
    CHECK(set.get(0) == 1);
    CHECK(set.get(0, GETNCNT) == 0);
    CHECK(child.wait() == exited(0));
    CHECK(set.get(0, GETPID) == child.pid());
}

TEST_CASE("sem: waiting for zero") {
    const Set set(1);
    set.set(0, 2);
    Child child([&] { CHILD_THAT(set.operate({op(0, 0)}), succeeds()); });
    wait_until_blocked(child.pid());
    CHECK(set.get(0, GETZCNT) == 1);
    CHECK_THAT(set.operate({op(0, -1)}), succeeds());
    CHECK(child.running());
    CHECK_THAT(set.set(0, 0), succeeds());
    CHECK(child.wait() == exited(0));
}

TEST_CASE("sem: one that waits for one may let another on") {
    const Set set(2);
    // The first needs both, the second gives the second when it gets the first.
    Child both([&] { CHILD_THAT(set.operate({op(0, -1), op(1, -1)}), succeeds()); });
    wait_until_blocked(both.pid());
    Child giver([&] { CHILD_THAT(set.operate({op(0, -2), op(0, 1), op(1, 1)}), succeeds()); });
    wait_until_blocked(giver.pid());
    CHECK_THAT(set.operate({op(0, 2)}), succeeds());
    CHECK(giver.wait() == exited(0));
    CHECK(both.wait() == exited(0));
    CHECK(set.get(0) == 0);
    CHECK(set.get(1) == 0);
}

TEST_CASE("sem: removal wakes sleepers with EIDRM") {
    const int id = ::semget(IPC_PRIVATE, 1, 0600);
    REQUIRE(id >= 0);
    Child child([&] {
        sembuf take = op(0, -1);
        CHILD_THAT(::semop(id, &take, 1), fails_with(EIDRM));
    });
    wait_until_blocked(child.pid());
    CHECK_THAT(::semctl(id, 0, IPC_RMID), succeeds());
    CHECK(child.wait() == exited(0));
    sembuf take = op(0, -1);
    CHECK_THAT(::semop(id, &take, 1), fails_with(EINVAL));
    CHECK_THAT(::semctl(id, 0, GETVAL), fails_with(EINVAL));
}

void nothing(int) {}

TEST_CASE("sem: a signal interrupts, even with SA_RESTART") {
    const Set set(1);
    Child child([&] {
        struct sigaction action {};
        action.sa_handler = nothing;
        action.sa_flags = SA_RESTART;
        ::sigaction(SIGUSR1, &action, nullptr);
        CHILD_THAT(set.operate({op(0, -1)}), fails_with(EINTR));
    });
    wait_until_blocked(child.pid());
    child.kill(SIGUSR1);
    CHECK(child.wait() == exited(0));
    CHECK(set.get(0, GETNCNT) == 0);
}

TEST_CASE("sem: semtimedop gives up in time") {
    const Set set(1);
    sembuf take = op(0, -1);
    const timespec soon{0, 20'000'000};
    CHECK_THAT(::semtimedop(set.id(), &take, 1, &soon), fails_with(EAGAIN));
    CHECK(set.get(0, GETNCNT) == 0);
    const timespec wrong{0, 1'000'000'000};
    CHECK_THAT(::semtimedop(set.id(), &take, 1, &wrong), fails_with(EINVAL));
    set.set(0, 1);
    CHECK_THAT(::semtimedop(set.id(), &take, 1, nullptr), succeeds());
}

TEST_CASE("sem: SEM_UNDO gives back at exit") {
    const Set set(2);
    set.set(0, 4);
    in_child([&] {
        CHILD_THAT(set.operate({op(0, -3, SEM_UNDO), op(1, 2, SEM_UNDO)}), succeeds());
        CHILD_CHECK(set.get(0) == 1);
    });
    CHECK(set.get(0) == 4);
    CHECK(set.get(1) == 0);
    // Killed while it holds it, with somebody waiting.
    Gate held;
    Child holder([&] {
        CHILD_THAT(set.operate({op(0, -4, SEM_UNDO)}), succeeds());
        held.open();
        ::pause();
    });
    held.wait();
    Child waiter([&] { CHILD_THAT(set.operate({op(0, -1)}), succeeds()); });
    wait_until_blocked(waiter.pid());
    holder.kill(SIGKILL);
    CHECK(waiter.wait() == exited(0));
    CHECK(holder.wait() == killed(SIGKILL));
    CHECK(set.get(0) == 3);
}

TEST_CASE("sem: SETVAL forgets what was to be undone, an undone value stays in range") {
    const Set set(1);
    Gate done, end;
    Child child([&] {
        CHILD_THAT(set.operate({op(0, 5, SEM_UNDO)}), succeeds());
        done.open();
        end.wait();
    });
    done.wait();
    CHECK_THAT(set.set(0, 7), succeeds());
    end.open();
    CHECK(child.wait() == exited(0));
    CHECK(set.get(0) == 7);
    Gate again, finish;
    Child other([&] {
        CHILD_THAT(set.operate({op(0, 5, SEM_UNDO)}), succeeds());
        again.open();
        finish.wait();
    });
    again.wait();
    CHECK_THAT(set.operate({op(0, -10)}), succeeds());
    finish.open();
    CHECK(other.wait() == exited(0));
    CHECK(set.get(0) == 0);  // not -3
}

TEST_CASE("sem: a sleeper's SEM_UNDO counts from when it is let on") {
    const Set set(1);
    Gate taken, end;
    Child child([&] {
        CHILD_THAT(set.operate({op(0, -1, SEM_UNDO)}), succeeds());
        taken.open();
        end.wait();
    });
    wait_until_blocked(child.pid());
    CHECK_THAT(set.operate({op(0, 1)}), succeeds());
    taken.wait();
    CHECK(set.get(0) == 0);
    end.open();
    CHECK(child.wait() == exited(0));
    CHECK(set.get(0) == 1);
}

TEST_CASE("sem: keys, sizes and wrong arguments") {
    const key_t key = unused_key();
    CHECK_THAT(::semget(key, 1, 0), fails_with(ENOENT));
    const Set set(2, key);
    CHECK_THAT(::semget(key, 2, IPC_CREAT | 0600), succeeds_with(set.id()));
    CHECK_THAT(::semget(key, 3, 0), fails_with(EINVAL));
    CHECK_THAT(::semget(key, 1, IPC_CREAT | IPC_EXCL), fails_with(EEXIST));
    CHECK_THAT(::semget(IPC_PRIVATE, 0, 0600), fails_with(EINVAL));
    CHECK_THAT(::semget(IPC_PRIVATE, -1, 0600), fails_with(EINVAL));
    CHECK_THAT(set.operate({op(2, 1)}), fails_with(EFBIG));
    CHECK_THAT(set.set(0, 32768), fails_with(ERANGE));
    CHECK_THAT(set.set(0, -1), fails_with(ERANGE));
    CHECK_THAT(set.set(2, 1), fails_with(EINVAL));
    CHECK_THAT(set.get(5), fails_with(EINVAL));
    CHECK_THAT(set.set(0, 32767), succeeds());
    CHECK_THAT(set.operate({op(0, 1)}), fails_with(ERANGE));
    CHECK_THAT(::semop(set.id(), nullptr, 0), fails_with(EINVAL));
    CHECK_THAT(::semop(set.id(), bad<sembuf>(), 1), fails_with(EFAULT));
    std::vector<sembuf> many(501, op(0, 0));
    CHECK_THAT(::semop(set.id(), many.data(), many.size()), fails_with(E2BIG));
    CHECK_THAT(::semctl(set.id(), 0, 99), fails_with(EINVAL));
    unsigned short values[2] = {1, 40000};
    CHECK_THAT(::semctl(set.id(), 0, SETALL, Argument{.array = values}), fails_with(ERANGE));
}

TEST_CASE("sem: permissions are those of the mode") {
    SKIP_UNLESS(::geteuid() == 0, "needs root");
    const Set set(1, IPC_PRIVATE, IPC_CREAT | 0604);
    in_child([&] {
        CHILD_THAT(::setgid(4242), succeeds());
        CHILD_THAT(::setuid(4242), succeeds());
        CHILD_THAT(set.get(0), succeeds_with(0));
        CHILD_THAT(set.operate({op(0, 0)}), succeeds());
        CHILD_THAT(set.operate({op(0, 1)}), fails_with(EACCES));
        CHILD_THAT(set.set(0, 1), fails_with(EACCES));
        CHILD_THAT(::semctl(set.id(), 0, IPC_RMID), fails_with(EPERM));
    });
}

TEST_CASE("sem: SEM_STAT, SEM_INFO and /proc list what there is") {
    const Set set(6);
    seminfo info{};
    const int highest = ::semctl(0, 0, SEM_INFO, Argument{.info = &info});
    REQUIRE(highest >= 0);
    CHECK(info.semusz >= 1);
    CHECK(info.semaem >= 6);
    bool found = false;
    for (int i = 0; i <= highest; i++) {
        semid_ds ds{};
        if (::semctl(i, 0, SEM_STAT, Argument{.buf = &ds}) == set.id()) {
            found = ds.sem_nsems == 6;
        }
    }
    CHECK(found);
    CHECK_THAT(::semctl(0, 0, IPC_INFO, Argument{.info = &info}), succeeds_with(highest));
    char limits[128];
    std::snprintf(limits, sizeof limits, "%d\t%d\t%d\t%d\n", info.semmsl, info.semmns, info.semopm,
                  info.semmni);
    CHECK(read_file("/proc/sys/kernel/sem") == limits);
    char line[128];
    std::snprintf(line, sizeof line, "         0 %10d   600 %10d", set.id(), 6);
    CHECK_MESSAGE(read_file("/proc/sysvipc/sem").find(line) != std::string::npos, line);
}

TEST_CASE("sem: as a lock it keeps processes apart") {
    const Set set(1);
    set.set(0, 1);
    const Mapping shared(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* const counter = shared.as<volatile int>();
    constexpr int kRounds = 300, kChildren = 4;
    const auto work = [&] {
        for (int i = 0; i < kRounds; i++) {
            CHILD_THAT(set.operate({op(0, -1, SEM_UNDO)}), succeeds());
            const int seen = *counter;
            ::sched_yield();
            *counter = seen + 1;
            CHILD_THAT(set.operate({op(0, 1, SEM_UNDO)}), succeeds());
        }
    };
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < kChildren; i++) {
        children.push_back(std::make_unique<Child>(work));
    }
    for (const auto& child : children) {
        CHECK(child->wait() == exited(0));
    }
    CHECK(*counter == kRounds * kChildren);
    CHECK(set.get(0) == 1);
}

}  // namespace
