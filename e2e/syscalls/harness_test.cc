// The test library itself: that it notices what it is there to notice.

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("harness: matchers tell success, value and errno apart") {
    errno = EBADF;
    const Outcome failed = outcome(-1);
    CHECK(failed.error == EBADF);
    CHECK(fails_with(EBADF).matches(failed));
    CHECK(!fails_with(EINVAL).matches(failed));
    CHECK(!succeeds().matches(failed));
    CHECK(fails_with_any({EINVAL, EBADF}).matches(failed));
    CHECK(succeeds_with(3).matches(outcome(3)));
    CHECK(!succeeds_with(3).matches(outcome(4)));
    CHECK(!succeeds_with(-1).matches(failed));
    CHECK(!fails_with(EBADF).matches(outcome(0)));
    CHECK(describe_mismatch("f()", failed, succeeds_with(2)) ==
          "f(): failed with EBADF, expected: the value 2");
}

TEST_CASE("harness: a child's status is what it did") {
    CHECK(run_in_child([] {}) == exited(0));
    CHECK(run_in_child([] { ::_exit(5); }) == exited(5));
    CHECK(run_in_child([] { ::raise(SIGKILL); }) == killed(SIGKILL));
    CHECK(!(run_in_child([] { ::_exit(1); }) == exited(0)));
    CHECK(!(killed(SIGTERM) == killed(SIGKILL)));
}

TEST_CASE("harness: failed checks end a child with its own status") {
    const auto quietly = [](const std::function<void()>& body) {
        // The messages are expected here: keep them out of the report.
        return run_in_child([&] {
            ::close_range(3, ~0U, 0);
            body();
        });
    };
    CHECK(quietly([] { CHILD_CHECK(1 == 2); }) == exited(kChildFailed));
    CHECK(quietly([] { CHILD_THAT(::close(-1), succeeds()); }) == exited(kChildFailed));
    CHECK(quietly([] { CHILD_THAT(::close(-1), fails_with(EBADF)); }) == exited(0));
    CHECK(quietly([] { fatal("x"); }) == exited(kChildFailed));
}

TEST_CASE("harness: fences catch writes before and behind a buffer") {
    FencedBuffer buffer(10);
    CHECK(buffer.intact());
    CHECK(buffer.untouched_from(0));
    CHECK(run_in_child([&] { const_cast<volatile char*>(buffer.data())[10] = 1; }) ==
          killed(SIGSEGV));
    buffer.data()[3] = 1;
    CHECK(!buffer.untouched_from(3));
    CHECK(buffer.untouched_from(4));
    buffer.data()[-1] = 1;
    CHECK(!buffer.intact());
}

TEST_CASE("harness: bad pointers are bad, the read-only page is readable") {
    CHECK(!readable(bad_pointer()));
    CHECK(!readable(kernel_pointer()));
    CHECK(readable(read_only_page()));
    CHECK(run_in_child([] { *static_cast<volatile char*>(read_only_page()) = 1; }) ==
          killed(SIGSEGV));
}

TEST_CASE("harness: a temporary directory is fresh and goes away with all its contents") {
    std::string path;
    {
        TempDir dir;
        path = dir.path();
        CHECK(read_file(dir.file("a", "text")) == "text");
    }
    CHECK_THAT(::access(path.c_str(), F_OK), fails_with(ENOENT));
}

}  // namespace
