// set_robust_list(2), get_robust_list(2): locks of dead owners.

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

using Word = std::atomic<uint32_t>;

/// A robust mutex in memory that parent and child share.
class SharedMutex {
  public:
    SharedMutex() : page_(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS) {
        pthread_mutexattr_t attributes;
        ::pthread_mutexattr_init(&attributes);
        ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        if (::pthread_mutex_init(get(), &attributes) != 0) {
            fatal("no robust mutex");
        }
    }
    pthread_mutex_t* get() const { return page_.as<pthread_mutex_t>(); }

  private:
    Mapping page_;
};

TEST_CASE("robust mutex: the next owner of a killed process's lock gets EOWNERDEAD") {
    SharedMutex mutex;
    Gate locked;
    Child owner([&] {
        CHILD_CHECK(::pthread_mutex_lock(mutex.get()) == 0);
        locked.open();
        ::pause();
    });
    locked.wait();
    CHECK(::pthread_mutex_trylock(mutex.get()) == EBUSY);
    owner.kill(SIGKILL);
    CHECK(owner.wait() == killed(SIGKILL));
    CHECK(::pthread_mutex_lock(mutex.get()) == EOWNERDEAD);
    CHECK(::pthread_mutex_consistent(mutex.get()) == 0);
    CHECK(::pthread_mutex_unlock(mutex.get()) == 0);
    CHECK(::pthread_mutex_lock(mutex.get()) == 0);
    CHECK(::pthread_mutex_unlock(mutex.get()) == 0);
}

TEST_CASE("robust mutex: a blocked waiter is woken by the owner's death") {
    SharedMutex mutex;
    Gate locked, die;
    Child owner([&] {
        CHILD_CHECK(::pthread_mutex_lock(mutex.get()) == 0);
        locked.open();
        die.wait();
        ::_exit(0);
    });
    locked.wait();
    int result = -1;
    Thread waiter([&] { result = ::pthread_mutex_lock(mutex.get()); });
    wait_until_blocked(::getpid(), waiter.tid());
    die.open();
    waiter.join();
    CHECK(result == EOWNERDEAD);
    CHECK(owner.wait() == exited(0));
}

TEST_CASE("robust mutex: an unrecovered lock becomes ENOTRECOVERABLE") {
    SharedMutex mutex;
    CHECK(run_in_child([&] { ::pthread_mutex_lock(mutex.get()); }) == exited(0));
    CHECK(::pthread_mutex_lock(mutex.get()) == EOWNERDEAD);
    CHECK(::pthread_mutex_unlock(mutex.get()) == 0);
    CHECK(::pthread_mutex_lock(mutex.get()) == ENOTRECOVERABLE);
}

TEST_CASE("robust mutex: a thread's end counts as well as a process's") {
    SharedMutex mutex;
    {
        Thread owner([&] { ::pthread_mutex_lock(mutex.get()); });
    }
    CHECK(::pthread_mutex_lock(mutex.get()) == EOWNERDEAD);
    ::pthread_mutex_consistent(mutex.get());
    ::pthread_mutex_unlock(mutex.get());
}

GUEST_HELPER(exit_zero) { return 0; }

TEST_CASE("robust mutex: an exec releases the old program's locks") {
    SharedMutex mutex;
    CHECK(run_in_child([&] {
              ::pthread_mutex_lock(mutex.get());
              exec_helper("exit_zero");
          }) == exited(0));
    CHECK(::pthread_mutex_lock(mutex.get()) == EOWNERDEAD);
    ::pthread_mutex_consistent(mutex.get());
    ::pthread_mutex_unlock(mutex.get());
}

struct Node {
    robust_list list;
    Word word;
};

TEST_CASE("robust list: every owned word is marked, a foreign one is not") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* nodes = page.as<Node>();
    in_child([&] {
        auto* head = page.as<robust_list_head>(2048);
        head->futex_offset = offsetof(Node, word);
        head->list_op_pending = nullptr;
        head->list.next = &nodes[0].list;
        nodes[0].list.next = &nodes[1].list;
        nodes[1].list.next = &nodes[2].list;
        nodes[2].list.next = &head->list;
        const auto me = static_cast<uint32_t>(gettid_now());
        nodes[0].word = me;
        nodes[1].word = me + 1;
        nodes[2].word = me | FUTEX_WAITERS;
        CHILD_THAT(::syscall(SYS_set_robust_list, head, sizeof *head), succeeds());
    });
    CHECK(nodes[0].word == FUTEX_OWNER_DIED);
    CHECK((nodes[1].word & FUTEX_OWNER_DIED) == 0);
    CHECK(nodes[2].word == (FUTEX_OWNER_DIED | FUTEX_WAITERS));
}

TEST_CASE("robust list: the operation in progress is marked, too") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* node = page.as<Node>();
    in_child([&] {
        auto* head = page.as<robust_list_head>(2048);
        head->futex_offset = offsetof(Node, word);
        head->list.next = &head->list;
        head->list_op_pending = &node->list;
        node->word = static_cast<uint32_t>(gettid_now());
        CHILD_THAT(::syscall(SYS_set_robust_list, head, sizeof *head), succeeds());
    });
    CHECK(node->word == FUTEX_OWNER_DIED);
}

TEST_CASE("robust list: circles, wild pointers and unmapped heads end the exit all the same") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    CHECK(run_in_child([&] {
              auto* head = page.as<robust_list_head>();
              auto* nodes = page.as<Node>(1024);
              head->futex_offset = 8;
              head->list_op_pending = nullptr;
              head->list.next = &nodes[0].list;
              nodes[0].list.next = &nodes[1].list;
              nodes[1].list.next = &nodes[0].list;  // never comes back to the head
              ::syscall(SYS_set_robust_list, head, sizeof *head);
          }) == exited(0));
    CHECK(run_in_child([&] {
              auto* head = page.as<robust_list_head>();
              head->futex_offset = static_cast<long>(0x8000000000000000UL);
              head->list.next = static_cast<robust_list*>(kernel_pointer());
              head->list_op_pending = static_cast<robust_list*>(bad_pointer());
              ::syscall(SYS_set_robust_list, head, sizeof *head);
          }) == exited(0));
    CHECK(run_in_child([&] {
              ::syscall(SYS_set_robust_list, bad<robust_list_head>(), sizeof(robust_list_head));
          }) == exited(0));
}

TEST_CASE("set_robust_list: only the one length is accepted, get_robust_list returns it") {
    in_child([] {
        static robust_list_head head;
        head.list.next = &head.list;
        CHILD_THAT(::syscall(SYS_set_robust_list, &head, 8), fails_with(EINVAL));
        CHILD_THAT(::syscall(SYS_set_robust_list, &head, sizeof head), succeeds());
        robust_list_head* got = nullptr;
        size_t length = 0;
        CHILD_THAT(::syscall(SYS_get_robust_list, 0, &got, &length), succeeds());
        CHILD_CHECK(got == &head);
        CHILD_CHECK(length == sizeof head);
        CHILD_THAT(::syscall(SYS_get_robust_list, 0, bad<void>(), &length), fails_with(EFAULT));
        CHILD_THAT(::syscall(SYS_get_robust_list, 0x7ffffff0, &got, &length), fails_with(ESRCH));
    });
}

}  // namespace
