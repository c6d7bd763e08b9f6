// shmget(2), shmat(2), shmdt(2), shmctl(2).

#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// A segment that is removed at the end.
class Segment {
  public:
    explicit Segment(size_t size, key_t key = IPC_PRIVATE, int flags = IPC_CREAT | 0600)
        : id_(::shmget(key, size, flags)) {
        if (id_ < 0) {
            fatal("shmget: " + errno_name(errno));
        }
    }
    ~Segment() { ::shmctl(id_, IPC_RMID, nullptr); }
    int id() const { return id_; }
    shmid_ds stat() const {
        shmid_ds ds{};
        if (::shmctl(id_, IPC_STAT, &ds) != 0) {
            fatal("IPC_STAT: " + errno_name(errno));
        }
        return ds;
    }

  private:
    int id_;
};

char* attach(int id, int flags = 0) {
    void* const at = ::shmat(id, nullptr, flags);
    if (at == reinterpret_cast<void*>(-1)) {
        fatal("shmat: " + errno_name(errno));
    }
    return static_cast<char*>(at);
}

key_t unused_key() {
    for (key_t key = 0x6d6f0000 + ::getpid();; key += 0x10000) {
        if (::shmget(key, 0, 0) < 0 && errno == ENOENT) {
            return key;
        }
    }
}

TEST_CASE("shm: what one attachment writes the other reads") {
    const Segment segment(10000);
    char* const a = attach(segment.id());
    char* const b = attach(segment.id());
    CHECK(a != b);
    CHECK(a[9999] == 0);
    std::strcpy(a + 5000, "shared");
    CHECK(std::string(b + 5000) == "shared");
    const shmid_ds ds = segment.stat();
    CHECK(ds.shm_nattch == 2);
    CHECK(ds.shm_segsz == 10000);
    CHECK(ds.shm_cpid == ::getpid());
    CHECK(ds.shm_lpid == ::getpid());
    CHECK(ds.shm_atime >= ds.shm_ctime);
    CHECK((ds.shm_perm.mode & 0777) == 0600);
    CHECK_THAT(::shmdt(a), succeeds());
    CHECK_THAT(::shmdt(a), fails_with(EINVAL));
    CHECK(segment.stat().shm_nattch == 1);
    CHECK(segment.stat().shm_dtime >= ds.shm_ctime);
    CHECK_THAT(::shmdt(b), succeeds());
    CHECK(!readable(b));
    CHECK(segment.stat().shm_nattch == 0);
}

TEST_CASE("shm: contents stay while nobody is attached") {
    const Segment segment(4096);
    char* a = attach(segment.id());
    a[7] = 'x';
    ::shmdt(a);
    a = attach(segment.id());
    CHECK(a[7] == 'x');
    ::shmdt(a);
}

TEST_CASE("shm: a forked child is attached, and its exit detaches it") {
    const Segment segment(4096);
    char* const a = attach(segment.id());
    Gate forked, checked;
    Child child([&] {
        a[0] = 'c';
        forked.open();
        checked.wait();
    });
    forked.wait();
    CHECK(a[0] == 'c');
    CHECK(segment.stat().shm_nattch == 2);
    checked.open();
    CHECK(child.wait() == exited(0));
    CHECK(segment.stat().shm_nattch == 1);
    CHECK(segment.stat().shm_lpid == child.pid());
    ::shmdt(a);
}

GUEST_HELPER(nattch_of) {
    shmid_ds ds{};
    return ::shmctl(std::stoi(argv[0]), IPC_STAT, &ds) == 0 ? static_cast<int>(ds.shm_nattch) : 99;
}

TEST_CASE("shm: execve detaches") {
    const Segment segment(4096);
    char* const a = attach(segment.id());
    CHECK(run_in_child([&] { exec_helper("nattch_of", {std::to_string(segment.id())}); }) ==
          exited(1));
    ::shmdt(a);
}

TEST_CASE("shm: a removed segment lives until the last has detached") {
    const key_t key = unused_key();
    const int id = ::shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
    REQUIRE(id >= 0);
    char* const a = attach(id);
    a[0] = 'a';
    CHECK_THAT(::shmctl(id, IPC_RMID, nullptr), succeeds());
    shmid_ds ds{};
    CHECK_THAT(::shmctl(id, IPC_STAT, &ds), succeeds());
    CHECK((ds.shm_perm.mode & SHM_DEST) != 0);
    CHECK(ds.shm_perm.__key == IPC_PRIVATE);
    CHECK_THAT(::shmget(key, 4096, 0), fails_with(ENOENT));
    // By its number it can still be attached.
    char* const b = attach(id);
    CHECK(b[0] == 'a');
    ::shmdt(a);
    CHECK_THAT(::shmctl(id, IPC_STAT, &ds), succeeds());
    ::shmdt(b);
    CHECK_THAT(::shmctl(id, IPC_STAT, &ds), fails_with(EINVAL));
    CHECK_THAT(::shmat(id, nullptr, 0), fails_with(EINVAL));
}

TEST_CASE("shm: a removed segment goes with the process that has it") {
    int id = -1;
    Pipe pipe;
    in_child([&] {
        const int made = ::shmget(IPC_PRIVATE, 4096, 0600);
        CHILD_CHECK(made >= 0);
        attach(made);
        CHILD_THAT(::shmctl(made, IPC_RMID, nullptr), succeeds());
        write_all(pipe.write_end.get(), std::to_string(made) + "\n");
    });
    id = std::stoi(read_exactly(pipe.read_end.get(), 1) + [&] {
        pipe.write_end.reset();
        return read_all(pipe.read_end.get());
    }());
    shmid_ds ds{};
    CHECK_THAT(::shmctl(id, IPC_STAT, &ds), fails_with(EINVAL));
}

TEST_CASE("shm: keys find segments") {
    const key_t key = unused_key();
    CHECK_THAT(::shmget(key, 4096, 0), fails_with(ENOENT));
    const Segment segment(4096, key);
    CHECK_THAT(::shmget(key, 4096, 0), succeeds_with(segment.id()));
    CHECK_THAT(::shmget(key, 0, 0), succeeds_with(segment.id()));
    CHECK_THAT(::shmget(key, 100, IPC_CREAT | 0600), succeeds_with(segment.id()));
    CHECK_THAT(::shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), fails_with(EEXIST));
    CHECK_THAT(::shmget(key, 5000, 0), fails_with(EINVAL));
}

TEST_CASE("shm: wrong arguments fail") {
    CHECK_THAT(::shmget(IPC_PRIVATE, 0, 0600), fails_with(EINVAL));
    const Segment segment(4096);
    CHECK_THAT(::shmat(-1, nullptr, 0), fails_with(EINVAL));
    CHECK_THAT(::shmat(0x7ffffff0, nullptr, 0), fails_with(EINVAL));
    CHECK_THAT(::shmat(segment.id(), reinterpret_cast<void*>(0x10000001), 0), fails_with(EINVAL));
    CHECK_THAT(::shmat(segment.id(), nullptr, SHM_REMAP), fails_with(EINVAL));
    CHECK_THAT(::shmdt(reinterpret_cast<void*>(0x1001)), fails_with(EINVAL));
    CHECK_THAT(::shmctl(segment.id(), 99, nullptr), fails_with(EINVAL));
    CHECK_THAT(::shmctl(segment.id(), IPC_STAT, bad<shmid_ds>()), fails_with(EFAULT));
    CHECK(segment.stat().shm_nattch == 0);
    const Mapping other(4096);
    CHECK_THAT(::shmdt(other.data()), fails_with(EINVAL));
}

TEST_CASE("shm: at an address of one's own, rounded, and over something else") {
    const Segment segment(8192);
    Mapping place(8192);
    char* const wanted = place.data();
    // What is taken stays.
    CHECK_THAT(::shmat(segment.id(), wanted, 0), fails_with(EINVAL));
    wanted[0] = 'p';
    CHECK(::shmat(segment.id(), wanted + 5, SHM_RND | SHM_REMAP) == wanted);
    CHECK(wanted[0] == 0);
    CHECK(segment.stat().shm_nattch == 1);
    CHECK_THAT(::shmdt(wanted), succeeds());
    place.release();
    CHECK(::shmat(segment.id(), wanted, 0) == wanted);
    CHECK_THAT(::shmdt(wanted), succeeds());
    CHECK(segment.stat().shm_nattch == 0);
}

TEST_CASE("shm: read only stays read only") {
    const Segment segment(4096);
    char* const a = attach(segment.id());
    a[0] = 'r';
    char* const b = attach(segment.id(), SHM_RDONLY);
    CHECK(b[0] == 'r');
    CHECK(run_in_child([&] { *static_cast<volatile char*>(b) = 'w'; }) == killed(SIGSEGV));
    CHECK_THAT(::mprotect(b, 4096, PROT_READ | PROT_WRITE), fails_with(EACCES));
    ::shmdt(a);
    ::shmdt(b);
}

TEST_CASE("shm: munmap and mmap over an attachment count") {
    const Segment segment(3 * page_size());
    char* const a = attach(segment.id());
    CHECK_THAT(::munmap(a + page_size(), page_size()), succeeds());
    CHECK(segment.stat().shm_nattch == 2);  // two pieces are left
    CHECK(!readable(a + page_size()));
    CHECK_THAT(::munmap(a, page_size()), succeeds());
    CHECK(segment.stat().shm_nattch == 1);
    CHECK(::mmap(a + 2 * page_size(), page_size(), PROT_READ,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == a + 2 * page_size());
    CHECK(segment.stat().shm_nattch == 0);
    ::munmap(a + 2 * page_size(), page_size());
}

TEST_CASE("shm: shmdt takes all pieces of an attachment") {
    const Segment segment(3 * page_size());
    char* const a = attach(segment.id());
    a[0] = 'a';
    CHECK_THAT(::munmap(a + page_size(), page_size()), succeeds());
    CHECK_THAT(::shmdt(a), succeeds());
    CHECK(segment.stat().shm_nattch == 0);
    CHECK(!readable(a));
    CHECK(!readable(a + 2 * page_size()));
}

TEST_CASE("shm: a moved attachment is one still") {
    const Segment segment(2 * page_size());
    char* const a = attach(segment.id());
    a[page_size()] = 'm';
    Mapping place(2 * page_size());
    void* const b =
        ::mremap(a, 2 * page_size(), 2 * page_size(), MREMAP_MAYMOVE | MREMAP_FIXED, place.data());
    REQUIRE(b == place.data());
    place.release();
    CHECK(static_cast<char*>(b)[page_size()] == 'm');
    CHECK(segment.stat().shm_nattch == 1);
    CHECK_THAT(::shmdt(a), fails_with(EINVAL));
    CHECK_THAT(::shmdt(b), succeeds());
    CHECK(segment.stat().shm_nattch == 0);
}

TEST_CASE("shm: permissions are those of the mode") {
    SKIP_UNLESS(::geteuid() == 0, "needs root");
    const Segment segment(4096, IPC_PRIVATE, IPC_CREAT | 0640);
    in_child([&] {
        CHILD_THAT(::setgid(4242), succeeds());
        CHILD_THAT(::setuid(4242), succeeds());
        CHILD_THAT(::shmat(segment.id(), nullptr, SHM_RDONLY), fails_with(EACCES));
        shmid_ds ds{};
        CHILD_THAT(::shmctl(segment.id(), IPC_STAT, &ds), fails_with(EACCES));
        CHILD_THAT(::shmctl(segment.id(), IPC_RMID, nullptr), fails_with(EPERM));
    });
    shmid_ds ds = segment.stat();
    ds.shm_perm.uid = 4242;
    ds.shm_perm.mode = 0440;
    REQUIRE_THAT(::shmctl(segment.id(), IPC_SET, &ds), succeeds());
    in_child([&] {
        CHILD_THAT(::setuid(4242), succeeds());
        CHILD_THAT(::shmat(segment.id(), nullptr, 0), fails_with(EACCES));
        CHILD_CHECK(::shmat(segment.id(), nullptr, SHM_RDONLY) != reinterpret_cast<void*>(-1));
        // The owner may change it, and with it what it may do.
        shmid_ds own{};
        CHILD_THAT(::shmctl(segment.id(), IPC_STAT, &own), succeeds());
        CHILD_CHECK(own.shm_perm.uid == 4242);
        own.shm_perm.mode = 0600;
        CHILD_THAT(::shmctl(segment.id(), IPC_SET, &own), succeeds());
        CHILD_CHECK(::shmat(segment.id(), nullptr, 0) != reinterpret_cast<void*>(-1));
    });
}

TEST_CASE("shm: SHM_STAT, SHM_INFO and /proc list what there is") {
    const Segment segment(12345);
    char* const a = attach(segment.id());
    a[0] = 1;
    struct shm_info info {};
    const int highest = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
    REQUIRE(highest >= 0);
    CHECK(info.used_ids >= 1);
    CHECK(info.shm_tot >= 4);
    CHECK(info.shm_rss >= 1);
    bool found = false;
    for (int i = 0; i <= highest; i++) {
        shmid_ds ds{};
        if (::shmctl(i, SHM_STAT, &ds) == segment.id()) {
            found = true;
            CHECK(ds.shm_segsz == 12345);
            CHECK(ds.shm_nattch == 1);
        }
    }
    CHECK(found);
    struct shminfo limits {};
    CHECK_THAT(::shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)), succeeds_with(highest));
    CHECK(limits.shmmin == 1);
    CHECK(std::to_string(limits.shmmni) + "\n" == read_file("/proc/sys/kernel/shmmni"));
    CHECK(std::to_string(limits.shmmax) + "\n" == read_file("/proc/sys/kernel/shmmax"));
    CHECK(std::to_string(limits.shmall) + "\n" == read_file("/proc/sys/kernel/shmall"));
    char line[128];
    std::snprintf(line, sizeof line, "         0 %10d   600 %21d %5d %5d  %5d", segment.id(), 12345,
                  ::getpid(), ::getpid(), 1);
    CHECK_MESSAGE(read_file("/proc/sysvipc/shm").find(line) != std::string::npos, line);
    ::shmdt(a);
}

TEST_CASE("shm: /proc/self/maps names segments") {
    const key_t key = unused_key();
    const Segment segment(4096, key);
    char* const a = attach(segment.id());
    char wanted[64];
    std::snprintf(wanted, sizeof wanted, "/SYSV%08x (deleted)", key);
    CHECK(read_file("/proc/self/maps").find(wanted) != std::string::npos);
    ::shmdt(a);
}

TEST_CASE("shm: atomics and futexes work across processes") {
    const Segment segment(4096);
    auto* const counter = reinterpret_cast<std::atomic<int>*>(attach(segment.id()));
    constexpr int kRounds = 20000;
    const auto add = [&] {
        for (int i = 0; i < kRounds; i++) {
            counter->fetch_add(1);
        }
    };
    {
        Child child([&] {
            auto* const own = reinterpret_cast<std::atomic<int>*>(attach(segment.id()));
            for (int i = 0; i < kRounds; i++) {
                own->fetch_add(1);
            }
        });
        add();
        CHECK(child.wait() == exited(0));
    }
    CHECK(counter->load() == 2 * kRounds);
    ::shmdt(counter);
}

}  // namespace
