// brk(2), mremap(2).

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

unsigned long brk_raw(unsigned long address) {
    return static_cast<unsigned long>(::syscall(SYS_brk, address));
}

TEST_CASE("brk: zero asks for the current break") {
    const unsigned long now = brk_raw(0);
    CHECK(now != 0);
    CHECK(brk_raw(0) == now);
}

TEST_CASE("brk: it grows, gives zeroed memory and shrinks") {
    in_child([] {
        const unsigned long old = brk_raw(0);
        CHILD_CHECK(brk_raw(old + 1'000'000) == old + 1'000'000);
        char* memory = reinterpret_cast<char*>(old);
        for (int i = 0; i < 1'000'000; i += 1000) {
            CHILD_CHECK(memory[i] == 0);
            memory[i] = 'b';
        }
        CHILD_CHECK(brk_raw(old) == old);
        const unsigned long next_page = (old + 2 * page_size()) & ~(page_size() - 1);
        CHILD_CHECK(!readable(reinterpret_cast<char*>(next_page)));
        CHILD_CHECK(brk_raw(old + 1'000'000) == old + 1'000'000);
        CHILD_CHECK(*reinterpret_cast<char*>(next_page) == 0);
    });
}

TEST_CASE("brk: an impossible break leaves the old one and returns it") {
    const unsigned long now = brk_raw(0);
    CHECK(brk_raw(1) == now);
    CHECK(brk_raw(0xffff800000000000UL) == now);
    CHECK(brk_raw(~0UL) == now);
}

TEST_CASE("brk: it does not grow over another mapping") {
    in_child([] {
        const unsigned long old = brk_raw(0);
        const unsigned long wall = (old + 64 * page_size()) & ~(page_size() - 1);
        void* address = ::mmap(reinterpret_cast<void*>(wall), page_size(), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        CHILD_CHECK(address == reinterpret_cast<void*>(wall));
        *static_cast<char*>(address) = 'w';
        CHILD_CHECK(brk_raw(wall + 4 * page_size()) == old);
        CHILD_CHECK(*static_cast<char*>(address) == 'w');
    });
}

TEST_CASE("brk: RLIMIT_DATA stops it") {
    in_child([] {
        const unsigned long old = brk_raw(0);
        const rlimit limit{1 << 20, 1 << 20};
        CHILD_THAT(::setrlimit(RLIMIT_DATA, &limit), succeeds());
        CHILD_CHECK(brk_raw(old + (16 << 20)) == old);
    });
}

TEST_CASE("brk: a forked child has its own break") {
    const unsigned long old = brk_raw(0);
    in_child([=] { CHILD_CHECK(brk_raw(old + 100'000) == old + 100'000); });
    CHECK(brk_raw(0) == old);
}

TEST_CASE("brk: memory shrunk to the middle of a page keeps that page's bytes") {
    in_child([] {
        const unsigned long old = brk_raw(0);
        const unsigned long base = (old + page_size()) & ~(page_size() - 1);
        CHILD_CHECK(brk_raw(base + 4 * page_size()) == base + 4 * page_size());
        char* memory = reinterpret_cast<char*>(base);
        memory[10] = 'k';
        CHILD_CHECK(brk_raw(base + 5) == base + 5);
        CHILD_CHECK(memory[10] == 'k');
    });
}

TEST_CASE("mremap: growing may move, the bytes come along") {
    Mapping map(page_size());
    std::strcpy(map.data(), "moving");
    // A neighbour forces the move.
    Mapping wall(page_size());
    void* moved = ::mremap(map.data(), page_size(), 512 * page_size(), MREMAP_MAYMOVE);
    REQUIRE(moved != MAP_FAILED);
    if (moved != map.data()) {
        map.release();
    }
    CHECK(std::string(static_cast<char*>(moved)) == "moving");
    CHECK(static_cast<char*>(moved)[511 * page_size()] == 0);
    ::munmap(moved, 512 * page_size());
    map.release();
}

TEST_CASE("mremap: shrinking unmaps the tail in place") {
    Mapping map(4 * page_size());
    map.data()[0] = 's';
    CHECK_THAT(::mremap(map.data(), 4 * page_size(), page_size(), 0),
               succeeds_with(reinterpret_cast<long>(map.data())));
    CHECK(map.data()[0] == 's');
    CHECK(!readable(map.data() + page_size()));
}

TEST_CASE("mremap: growing in place into a neighbour fails with ENOMEM") {
    Mapping map(4 * page_size());
    CHECK_THAT(::mremap(map.data(), page_size(), 2 * page_size(), 0), fails_with(ENOMEM));
    CHECK(readable(map.data()));
}

TEST_CASE("mremap: growing in place into free space works") {
    Mapping map(4 * page_size());
    REQUIRE_THAT(::munmap(map.data() + page_size(), 3 * page_size()), succeeds());
    map.data()[0] = 'g';
    CHECK_THAT(::mremap(map.data(), page_size(), 3 * page_size(), 0),
               succeeds_with(reinterpret_cast<long>(map.data())));
    CHECK(map.data()[0] == 'g');
    CHECK(map.data()[2 * page_size()] == 0);
}

TEST_CASE("mremap: MREMAP_FIXED moves there and replaces what was there") {
    Mapping from(page_size()), to(page_size());
    std::strcpy(from.data(), "source");
    std::strcpy(to.data(), "target");
    CHECK_THAT(
        ::mremap(from.data(), page_size(), page_size(), MREMAP_MAYMOVE | MREMAP_FIXED, to.data()),
        succeeds_with(reinterpret_cast<long>(to.data())));
    CHECK(std::string(to.data()) == "source");
    CHECK(!readable(from.data()));
    from.release();
}

TEST_CASE("mremap: shared file memory stays connected to its file") {
    TempDir dir;
    const std::string path = dir.file("f", std::string(4 * page_size(), '.'));
    const FileDescriptor fd = open_file(path, O_RDWR);
    Mapping map(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    void* moved = ::mremap(map.data(), page_size(), 4 * page_size(), MREMAP_MAYMOVE);
    REQUIRE(moved != MAP_FAILED);
    static_cast<char*>(moved)[3 * page_size()] = '!';
    CHECK(read_file(path)[3 * page_size()] == '!');
    ::munmap(moved, 4 * page_size());
    map.release();
}

TEST_CASE("mremap: wrong arguments fail") {
    Mapping map(2 * page_size());
    CHECK_THAT(::mremap(map.data() + 1, page_size(), page_size(), MREMAP_MAYMOVE),
               fails_with(EINVAL));
    CHECK_THAT(::mremap(map.data(), page_size(), 0, MREMAP_MAYMOVE), fails_with(EINVAL));
    CHECK_THAT(::mremap(map.data(), page_size(), page_size(), 0x100), fails_with(EINVAL));
    CHECK_THAT(::mremap(map.data(), page_size(), page_size(), MREMAP_FIXED, map.data()),
               fails_with(EINVAL));
    CHECK_THAT(::mremap(map.data(), 2 * page_size(), 2 * page_size(), MREMAP_MAYMOVE | MREMAP_FIXED,
                        map.data() + page_size()),
               fails_with(EINVAL));
    REQUIRE_THAT(::munmap(map.data(), 2 * page_size()), succeeds());
    CHECK_THAT(::mremap(map.data(), page_size(), 2 * page_size(), MREMAP_MAYMOVE),
               fails_with(EFAULT));
    map.release();
}

TEST_CASE("mremap: a target in the kernel's half is refused and the source stays") {
    Mapping map(page_size());
    map.data()[0] = 'h';
    CHECK_THAT(::syscall(SYS_mremap, map.data(), page_size(), page_size(),
                         MREMAP_MAYMOVE | MREMAP_FIXED, kernel_pointer()),
               fails_with_any({EINVAL, ENOMEM}));
    CHECK(map.data()[0] == 'h');
}

}  // namespace
