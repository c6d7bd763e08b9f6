// mmap(2), munmap(2), mprotect(2), madvise(2), msync(2), mincore(2), mlock(2).

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// What touching an address does: 0, or the signal it raises. Runs in a child.
WaitStatus touch(volatile char* address, bool write) {
    return run_in_child([=] {
        if (write) {
            *address = 1;
        } else {
            (void)*address;
        }
    });
}

long mmap_raw(unsigned long address, size_t size, int protection, int flags, int fd, long offset) {
    return ::syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

TEST_CASE("mmap: anonymous memory is zero and writable") {
    Mapping map(64 * 1024);
    for (size_t i = 0; i < map.size(); i += 512) {
        REQUIRE(map.data()[i] == 0);
    }
    std::memset(map.data(), 'x', map.size());
    CHECK(map.data()[map.size() - 1] == 'x');
}

TEST_CASE("mmap: a file's bytes are there, beyond its end zeroes up to the page") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "contents"), O_RDONLY);
    Mapping map(page_size(), PROT_READ, MAP_PRIVATE, fd.get());
    CHECK(std::memcmp(map.data(), "contents\0\0", 10) == 0);
    CHECK(map.data()[page_size() - 1] == 0);
}

TEST_CASE("mmap: touching a page wholly beyond the end of the file raises SIGBUS") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "short"), O_RDONLY);
    Mapping map(2 * page_size(), PROT_READ, MAP_PRIVATE, fd.get());
    CHECK(touch(map.data() + page_size(), false) == killed(SIGBUS));
    CHECK(touch(map.data(), false) == exited(0));
}

TEST_CASE("mmap: private writes do not reach the file") {
    TempDir dir;
    const std::string path = dir.file("f", "original");
    const FileDescriptor fd = open_file(path, O_RDONLY);
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
    std::memcpy(map.data(), "CHANGED!", 8);
    CHECK(read_file(path) == "original");
    CHECK(std::memcmp(map.data(), "CHANGED!", 8) == 0);
}

TEST_CASE("mmap: shared writes are seen by read, and writes by the mapping") {
    TempDir dir;
    const std::string path = dir.file("f", "original");
    const FileDescriptor fd = open_file(path, O_RDWR);
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    std::memcpy(map.data(), "CHANGED!", 8);
    CHECK(read_file(path) == "CHANGED!");
    CHECK_THAT(::pwrite(fd.get(), "by write", 8, 0), succeeds_with(8));
    CHECK(std::memcmp(map.data(), "by write", 8) == 0);
}

TEST_CASE("mmap: two shared mappings of a file are one memory, across processes") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(100, '.'));
    const FileDescriptor fd = open_file(path, O_RDWR);
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    in_child([&] {
        const FileDescriptor mine = open_file(path, O_RDWR);
        Mapping other(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, mine.get());
        other.data()[7] = '!';
    });
    CHECK(map.data()[7] == '!');
}

TEST_CASE("mmap: the mapping outlives the descriptor and the name") {
    TempDir dir;
    const std::string path = dir.file("f", "still here");
    Mapping map;
    {
        const FileDescriptor fd = open_file(path, O_RDONLY);
        map = Mapping(page_size(), PROT_READ, MAP_PRIVATE, fd.get());
    }
    REQUIRE_THAT(::unlink(path.c_str()), succeeds());
    CHECK(std::string(map.data()) == "still here");
}

TEST_CASE("mmap: an offset selects later pages") {
    TempDir dir;
    const std::string path =
        dir.file("f", std::string(page_size(), 'a') + std::string(page_size(), 'b'));
    const FileDescriptor fd = open_file(path, O_RDONLY);
    Mapping map(page_size(), PROT_READ, MAP_SHARED, fd.get(), static_cast<off_t>(page_size()));
    CHECK(map.data()[0] == 'b');
}

TEST_CASE("mmap: growing the file makes its new pages accessible through the old mapping") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "x"), O_RDWR);
    Mapping map(2 * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    REQUIRE_THAT(::ftruncate(fd.get(), static_cast<off_t>(2 * page_size())), succeeds());
    map.data()[page_size()] = 'y';
    char c = 0;
    CHECK_THAT(::pread(fd.get(), &c, 1, static_cast<off_t>(page_size())), succeeds_with(1));
    CHECK(c == 'y');
}

TEST_CASE("mmap: truncating the file takes its pages away") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", std::string(2 * page_size(), 'x')), O_RDWR);
    Mapping map(2 * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    CHECK(map.data()[page_size()] == 'x');
    REQUIRE_THAT(::ftruncate(fd.get(), 0), succeeds());
    CHECK(touch(map.data() + page_size(), false) == killed(SIGBUS));
}

TEST_CASE("mmap: wrong arguments fail with EINVAL") {
    const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    CHECK_THAT(mmap_raw(0, 0, PROT_READ, anonymous, -1, 0), fails_with(EINVAL));
    CHECK_THAT(mmap_raw(0, 4096, PROT_READ, MAP_ANONYMOUS, -1, 0), fails_with(EINVAL));
    CHECK_THAT(mmap_raw(0, 4096, PROT_READ, anonymous, -1, 100), fails_with(EINVAL));
    CHECK_THAT(mmap_raw(0x10000001, 4096, PROT_READ, anonymous | MAP_FIXED, -1, 0),
               fails_with(EINVAL));
}

TEST_CASE("mmap: wild lengths fail with ENOMEM or EINVAL and map nothing") {
    const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    CHECK_THAT(mmap_raw(0, ~0UL, PROT_READ, anonymous, -1, 0), fails_with_any({ENOMEM, EINVAL}));
    CHECK_THAT(mmap_raw(0, 1UL << 48, PROT_READ, anonymous, -1, 0), fails_with(ENOMEM));
    CHECK_THAT(mmap_raw(0xffff800000000000UL, 4096, PROT_READ, anonymous | MAP_FIXED, -1, 0),
               fails_with_any({ENOMEM, EINVAL}));
}

TEST_CASE("mmap: access modes of the descriptor are respected") {
    TempDir dir;
    const std::string path = dir.file("f", "x");
    const FileDescriptor reader = open_file(path, O_RDONLY);
    const FileDescriptor writer = open_file(path, O_WRONLY);
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reader.get(), 0),
               fails_with(EACCES));
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, writer.get(), 0), fails_with(EACCES));
    Mapping map(4096, PROT_READ, MAP_SHARED, reader.get());
    CHECK_THAT(::mprotect(map.data(), 4096, PROT_READ | PROT_WRITE), fails_with(EACCES));
}

TEST_CASE("mmap: descriptors that cannot be mapped are refused") {
    Pipe pipe;
    TempDir dir;
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, pipe.read_end.get(), 0),
               fails_with(ENODEV));
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, directory.get(), 0),
               fails_with(ENODEV));
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, 999, 0), fails_with(EBADF));
}

TEST_CASE("mmap: MAP_FIXED replaces what was there, MAP_FIXED_NOREPLACE does not") {
    Mapping map(3 * page_size());
    std::memset(map.data(), 'o', map.size());
    char* middle = map.data() + page_size();
    CHECK_THAT(::mmap(middle, page_size(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
               fails_with(EEXIST));
    CHECK(middle[0] == 'o');
    CHECK_THAT(::mmap(middle, page_size(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
               succeeds_with(reinterpret_cast<long>(middle)));
    CHECK(middle[0] == 0);
    CHECK(map.data()[0] == 'o');
    CHECK(map.data()[2 * page_size()] == 'o');
}

TEST_CASE("mmap: a hint that is free is honoured") {
    char* free_place;
    {
        Mapping map(page_size());
        free_place = map.data();
    }
    CHECK_THAT(::mmap(free_place, page_size(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               succeeds_with(reinterpret_cast<long>(free_place)));
    ::munmap(free_place, page_size());
}

TEST_CASE("mmap: MAP_32BIT stays below two gigabytes") {
    void* address =
        ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    REQUIRE(address != MAP_FAILED);
    CHECK(reinterpret_cast<unsigned long>(address) + 4096 <= 0x80000000UL);
    ::munmap(address, 4096);
}

TEST_CASE("mmap: MAP_NORESERVE of 64 GiB costs nothing until touched") {
    const size_t size = 64UL << 30;
    void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    SKIP_UNLESS(address != MAP_FAILED, "no 64 GiB of address space by overcommit policy");
    static_cast<char*>(address)[size - 1] = 1;
    CHECK(static_cast<char*>(address)[size - 2] == 0);
    ::munmap(address, size);
}

TEST_CASE("munmap: a hole in the middle leaves both sides") {
    Mapping map(3 * page_size());
    map.data()[0] = 'l';
    map.data()[2 * page_size()] = 'r';
    REQUIRE_THAT(::munmap(map.data() + page_size(), page_size()), succeeds());
    CHECK(!readable(map.data() + page_size()));
    CHECK(map.data()[0] == 'l');
    CHECK(map.data()[2 * page_size()] == 'r');
    CHECK(touch(map.data() + page_size(), false) == killed(SIGSEGV));
}

TEST_CASE("munmap: nothing mapped is no error, bad arguments are") {
    Mapping map(page_size());
    CHECK_THAT(::munmap(map.data() + 1, page_size()), fails_with(EINVAL));
    CHECK_THAT(::munmap(map.data(), 0), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_munmap, 0xffff800000000000UL, 4096), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_munmap, 4096, ~0UL), fails_with(EINVAL));
    REQUIRE_THAT(::munmap(map.data(), page_size()), succeeds());
    CHECK_THAT(::munmap(map.data(), page_size()), succeeds());
    map.release();
}

TEST_CASE("mprotect: read-only pages keep their bytes and refuse writes") {
    Mapping map(page_size());
    map.data()[0] = 'k';
    REQUIRE_THAT(::mprotect(map.data(), page_size(), PROT_READ), succeeds());
    CHECK(map.data()[0] == 'k');
    CHECK(touch(map.data(), true) == killed(SIGSEGV));
    REQUIRE_THAT(::mprotect(map.data(), page_size(), PROT_NONE), succeeds());
    CHECK(touch(map.data(), false) == killed(SIGSEGV));
    REQUIRE_THAT(::mprotect(map.data(), page_size(), PROT_READ | PROT_WRITE), succeeds());
    CHECK(map.data()[0] == 'k');
}

TEST_CASE("mprotect: system calls respect it, too") {
    Mapping map(page_size());
    REQUIRE_THAT(::mprotect(map.data(), page_size(), PROT_READ), succeeds());
    Pipe pipe;
    REQUIRE(write_all(pipe.write_end.get(), "abc"));
    CHECK_THAT(::read(pipe.read_end.get(), map.data(), 3), fails_with(EFAULT));
    CHECK_THAT(::write(pipe.write_end.get(), map.data(), 3), succeeds_with(3));
}

TEST_CASE("mprotect: a range with a hole fails with ENOMEM") {
    Mapping map(3 * page_size());
    REQUIRE_THAT(::munmap(map.data() + page_size(), page_size()), succeeds());
    CHECK_THAT(::mprotect(map.data(), map.size(), PROT_READ), fails_with(ENOMEM));
    CHECK_THAT(::mprotect(map.data() + 1, page_size(), PROT_READ), fails_with(EINVAL));
    CHECK_THAT(::mprotect(map.data(), page_size(), 0x1000), fails_with(EINVAL));
    CHECK_THAT(::mprotect(map.data(), 0, PROT_READ), succeeds());
}

TEST_CASE("mprotect: written code runs after it became executable") {
    Mapping map(page_size());
    const unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3};  // mov $42,%eax; ret
    std::memcpy(map.data(), code, sizeof code);
    const auto function = reinterpret_cast<int (*)()>(map.data());
    CHECK(run_in_child([=] { function(); }) == killed(SIGSEGV));
    REQUIRE_THAT(::mprotect(map.data(), page_size(), PROT_READ | PROT_EXEC), succeeds());
    CHECK(function() == 42);
}

sigjmp_buf fault_jump;
void* fault_address;
int fault_code;

TEST_CASE("page fault: SIGSEGV tells the address and whether something is mapped there") {
    in_child([] {
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t* info, void*) {
            fault_address = info->si_addr;
            fault_code = info->si_code;
            siglongjmp(fault_jump, 1);
        };
        CHILD_THAT(::sigaction(SIGSEGV, &action, nullptr), succeeds());
        Mapping map(page_size(), PROT_READ);
        char* target = map.data() + 5;
        if (sigsetjmp(fault_jump, 1) == 0) {
            *const_cast<volatile char*>(target) = 1;
            CHILD_CHECK(false);
        }
        CHILD_CHECK(fault_address == target);
        CHILD_CHECK(fault_code == SEGV_ACCERR);
        CHILD_THAT(::munmap(map.data(), page_size()), succeeds());
        if (sigsetjmp(fault_jump, 1) == 0) {
            *const_cast<volatile char*>(target) = 1;
            CHILD_CHECK(false);
        }
        CHILD_CHECK(fault_address == target);
        CHILD_CHECK(fault_code == SEGV_MAPERR);
        map.release();
    });
}

TEST_CASE("page fault: a handler may repair the page and the instruction runs again") {
    in_child([] {
        static Mapping* map = new Mapping(page_size(), PROT_NONE);
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t*, void*) {
            ::mprotect(map->data(), map->size(), PROT_READ | PROT_WRITE);
        };
        CHILD_THAT(::sigaction(SIGSEGV, &action, nullptr), succeeds());
        map->data()[100] = 'r';
        CHILD_CHECK(map->data()[100] == 'r');
    });
}

TEST_CASE("madvise: MADV_DONTNEED zeroes private memory and rereads files") {
    Mapping map(2 * page_size());
    std::memset(map.data(), 'd', map.size());
    REQUIRE_THAT(::madvise(map.data(), page_size(), MADV_DONTNEED), succeeds());
    CHECK(map.data()[0] == 0);
    CHECK(map.data()[page_size()] == 'd');
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "file"), O_RDONLY);
    Mapping file(page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
    file.data()[0] = 'X';
    REQUIRE_THAT(::madvise(file.data(), page_size(), MADV_DONTNEED), succeeds());
    CHECK(file.data()[0] == 'f');
}

TEST_CASE("madvise: MADV_DONTFORK and MADV_WIPEONFORK act on the child only") {
    Mapping gone(page_size()), wiped(page_size());
    gone.data()[0] = wiped.data()[0] = 'm';
    REQUIRE_THAT(::madvise(gone.data(), page_size(), MADV_DONTFORK), succeeds());
    REQUIRE_THAT(::madvise(wiped.data(), page_size(), MADV_WIPEONFORK), succeeds());
    CHECK(touch(gone.data(), false) == killed(SIGSEGV));
    in_child([&] { CHILD_CHECK(wiped.data()[0] == 0); });
    CHECK(gone.data()[0] == 'm');
    CHECK(wiped.data()[0] == 'm');
}

TEST_CASE("madvise: errors") {
    Mapping map(page_size());
    CHECK_THAT(::madvise(map.data() + 1, 10, MADV_DONTNEED), fails_with(EINVAL));
    CHECK_THAT(::madvise(map.data(), page_size(), 9999), fails_with(EINVAL));
    CHECK_THAT(::madvise(map.data(), page_size(), MADV_NORMAL), succeeds());
    REQUIRE_THAT(::munmap(map.data(), page_size()), succeeds());
    CHECK_THAT(::madvise(map.data(), page_size(), MADV_DONTNEED), fails_with(ENOMEM));
    map.release();
}

TEST_CASE("msync: flags and holes are checked") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "file"), O_RDWR);
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    map.data()[0] = 'F';
    CHECK_THAT(::msync(map.data(), page_size(), MS_SYNC), succeeds());
    CHECK_THAT(::msync(map.data(), page_size(), MS_ASYNC), succeeds());
    CHECK_THAT(::msync(map.data(), page_size(), MS_SYNC | MS_ASYNC), fails_with(EINVAL));
    CHECK_THAT(::msync(map.data() + 1, page_size(), MS_SYNC), fails_with(EINVAL));
    CHECK_THAT(::msync(bad<char>() + (64UL << 30), page_size(), MS_SYNC), fails_with(ENOMEM));
}

TEST_CASE("mincore: a touched page is resident") {
    Mapping map(4 * page_size());
    map.data()[page_size()] = 1;
    FencedBuffer vector(4);
    REQUIRE_THAT(::mincore(map.data(), map.size(), reinterpret_cast<unsigned char*>(vector.data())),
                 succeeds());
    CHECK((vector.data()[1] & 1) == 1);
    CHECK(vector.intact());
    CHECK_THAT(::mincore(map.data(), map.size(), bad<unsigned char>()), fails_with(EFAULT));
}

TEST_CASE("mlock: a small range can be locked and unlocked") {
    Mapping map(page_size());
    CHECK_THAT(::mlock(map.data(), page_size()), succeeds());
    CHECK_THAT(::munlock(map.data(), page_size()), succeeds());
}

TEST_CASE("mmap: MAP_SHARED memory of a dead process lives on in its children") {
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    Child child([&] {
        Gate unused;
        const pid_t me = ::getpid();
        if (::fork() == 0) {
            eventually([=] { return ::getppid() != me; });
            map.data()[0] = 'o';
            ::_exit(0);
        }
    });
    CHECK(child.wait() == exited(0));
    CHECK(eventually([&] { return *const_cast<volatile char*>(map.data()) == 'o'; }));
}

TEST_CASE("mmap: /proc/self/mem cannot be used to write through a read-only page of another file") {
    TempDir dir;
    const std::string path = dir.file("f", "protected");
    const FileDescriptor fd = open_file(path, O_RDONLY);
    Mapping map(page_size(), PROT_READ, MAP_SHARED, fd.get());
    const FileDescriptor mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    SKIP_UNLESS(mem.valid(), "no /proc/self/mem for writing");
    CHECK(::pwrite(mem.get(), "X", 1, reinterpret_cast<off_t>(map.data())) != 1);
    CHECK(read_file(path) == "protected");
}

TEST_CASE("mmap: two threads map and unmap at the same time without losing pages") {
    std::atomic<int> wrong{0};
    const auto work = [&wrong](char mark) {
        return [&wrong, mark] {
            for (int i = 0; i < 300; ++i) {
                Mapping map(16 * 4096);
                for (size_t offset = 0; offset < map.size(); offset += 4096) {
                    wrong += map.data()[offset] != 0;
                    map.data()[offset] = mark;
                }
                for (size_t offset = 0; offset < map.size(); offset += 4096) {
                    wrong += map.data()[offset] != mark;
                }
            }
        };
    };
    {
        Thread a(work('a'));
        Thread b(work('b'));
    }
    CHECK(wrong == 0);
}

TEST_CASE("mmap: threads that map files at the same time each get their own, and forks none") {
    TempDir dir;
    std::atomic<int> wrong{0};
    const auto map_often = [&](const char* name, const char* contents) {
        const std::string path = dir.file(name, contents);
        return [&wrong, path, first = contents[0]] {
            const FileDescriptor fd = open_file(path, O_RDONLY);
            for (int i = 0; i < 500; ++i) {
                const Mapping map(4096, PROT_READ, MAP_PRIVATE, fd.get());
                wrong += map.data()[0] != first;
            }
        };
    };
    const auto fork_often = [&wrong] {
        for (int i = 0; i < 100; ++i) {
            wrong += !(run_in_child([] {}) == exited(0));
        }
    };
    {
        Thread a(map_often("a", "aaaa"));
        Thread b(map_often("b", "bbbb"));
        Thread c(map_often("c", "cccc"));
        Thread d(fork_often);
        Thread e(fork_often);
    }
    CHECK(wrong == 0);
}

}  // namespace
