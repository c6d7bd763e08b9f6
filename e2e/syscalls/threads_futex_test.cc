// clone(CLONE_THREAD), futex(2), set_tid_address(2), arch_prctl(2) and pthreads on top.

#include <asm/prctl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <memory>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

using Word = std::atomic<uint32_t>;
static_assert(sizeof(Word) == 4);

long futex(Word* word, int op, uint32_t value, const void* timeout_or_value2 = nullptr,
           Word* word2 = nullptr, uint32_t value3 = 0) {
    return ::syscall(SYS_futex, word, op, value, timeout_or_value2, word2, value3);
}

timespec seconds_from_now(int clock, int seconds) {
    timespec t;
    ::clock_gettime(clock, &t);
    t.tv_sec += seconds;
    return t;
}

TEST_CASE("threads: they share memory and descriptors, each has its own thread-local variables") {
    static thread_local int local = 1;
    int shared = 0;
    int fd = -1;
    local = 2;
    Thread thread([&] {
        shared = local;
        fd = ::dup(1);
    });
    thread.join();
    CHECK(shared == 1);
    CHECK(local == 2);
    CHECK_THAT(::close(fd), succeeds());
}

TEST_CASE("threads: fifty start, count under a mutex and end") {
    int counter = 0;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    {
        std::vector<std::unique_ptr<Thread>> threads;
        for (int i = 0; i < 50; ++i) {
            threads.push_back(std::make_unique<Thread>([&] {
                for (int j = 0; j < 200; ++j) {
                    ::pthread_mutex_lock(&mutex);
                    ++counter;
                    ::pthread_mutex_unlock(&mutex);
                }
            }));
        }
    }
    CHECK(counter == 10'000);
}

TEST_CASE("threads: three hundred one after the other") {
    int ended = 0;
    for (int i = 0; i < 300; ++i) {
        Thread thread([&] { ++ended; });
    }
    CHECK(ended == 300);
}

TEST_CASE("threads: a thread's own large thread-local block") {
    static thread_local char big[512 * 1024];
    Thread thread([] {
        for (size_t i = 0; i < sizeof big; i += 4096) {
            big[i] = 1;
        }
    });
    thread.join();
    CHECK(big[0] == 0);
}

TEST_CASE("threads: a condition variable wakes its waiters") {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    bool go = false;
    int woken = 0;
    {
        std::vector<std::unique_ptr<Thread>> threads;
        for (int i = 0; i < 8; ++i) {
            threads.push_back(std::make_unique<Thread>([&] {
                ::pthread_mutex_lock(&mutex);
                while (!go) {
                    ::pthread_cond_wait(&condition, &mutex);
                }
                ++woken;
                ::pthread_mutex_unlock(&mutex);
            }));
            wait_until_blocked(::getpid(), threads.back()->tid());
        }
        ::pthread_mutex_lock(&mutex);
        go = true;
        ::pthread_cond_broadcast(&condition);
        ::pthread_mutex_unlock(&mutex);
    }
    CHECK(woken == 8);
}

TEST_CASE("threads: barriers, rwlocks and semaphores of libc") {
    pthread_barrier_t barrier;
    ::pthread_barrier_init(&barrier, nullptr, 4);
    pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    sem_t semaphore;
    ::sem_init(&semaphore, 0, 0);
    std::atomic<int> serial{0};
    int written = 0;
    {
        std::vector<std::unique_ptr<Thread>> threads;
        for (int i = 0; i < 4; ++i) {
            threads.push_back(std::make_unique<Thread>([&] {
                for (int round = 0; round < 50; ++round) {
                    serial += ::pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
                    ::pthread_rwlock_rdlock(&lock);
                    ::pthread_rwlock_unlock(&lock);
                    ::pthread_rwlock_wrlock(&lock);
                    ++written;
                    ::pthread_rwlock_unlock(&lock);
                }
                ::sem_post(&semaphore);
            }));
        }
        for (int i = 0; i < 4; ++i) {
            ::sem_wait(&semaphore);
        }
    }
    CHECK(serial == 50);
    CHECK(written == 200);
    ::pthread_barrier_destroy(&barrier);
}

TEST_CASE("threads: cancellation ends a blocked read") {
    Pipe pipe;
    pthread_t thread;
    struct Argument {
        int fd;
        std::atomic<pid_t> tid{0};
    } argument{pipe.read_end.get()};
    REQUIRE(::pthread_create(
                &thread, nullptr,
                [](void* p) -> void* {
                    auto* a = static_cast<Argument*>(p);
                    a->tid = gettid_now();
                    char c;
                    (void)::read(a->fd, &c, 1);
                    return nullptr;
                },
                &argument) == 0);
    REQUIRE(eventually([&] { return argument.tid != 0; }));
    wait_until_blocked(::getpid(), argument.tid);
    CHECK(::pthread_cancel(thread) == 0);
    void* result = nullptr;
    CHECK(::pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
}

TEST_CASE("futex: FUTEX_WAIT with another value fails with EAGAIN") {
    Word word{1};
    CHECK_THAT(futex(&word, FUTEX_WAIT, 2), fails_with(EAGAIN));
    CHECK_THAT(futex(&word, FUTEX_WAIT_PRIVATE, 0), fails_with(EAGAIN));
}

TEST_CASE("futex: wake returns how many were woken, and wakes only as many as asked") {
    Word word{0};
    std::atomic<int> woken{0};
    std::vector<std::unique_ptr<Thread>> threads;
    for (int i = 0; i < 4; ++i) {
        threads.push_back(std::make_unique<Thread>([&] {
            while (futex(&word, FUTEX_WAIT_PRIVATE, 0) != 0 && errno == EINTR) {
            }
            ++woken;
        }));
        wait_until_blocked(::getpid(), threads.back()->tid());
    }
    CHECK_THAT(futex(&word, FUTEX_WAKE_PRIVATE, 1), succeeds_with(1));
    CHECK(eventually([&] { return woken == 1; }));
    CHECK_THAT(futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX), succeeds_with(3));
    threads.clear();
    CHECK(woken == 4);
    CHECK_THAT(futex(&word, FUTEX_WAKE_PRIVATE, 1), succeeds_with(0));
}

TEST_CASE("futex: a relative timeout ends the wait with ETIMEDOUT") {
    Word word{0};
    const timespec brief{0, 2'000'000};
    CHECK_THAT(futex(&word, FUTEX_WAIT, 0, &brief), fails_with(ETIMEDOUT));
    const timespec wrong{0, 1'000'000'000};
    CHECK_THAT(futex(&word, FUTEX_WAIT, 0, &wrong), fails_with(EINVAL));
}

TEST_CASE("futex: FUTEX_WAIT_BITSET takes absolute times of both clocks") {
    Word word{0};
    timespec past{1, 0};
    CHECK_THAT(futex(&word, FUTEX_WAIT_BITSET, 0, &past, nullptr, ~0U), fails_with(ETIMEDOUT));
    CHECK_THAT(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &past, nullptr, ~0U),
               fails_with(ETIMEDOUT));
    CHECK_THAT(futex(&word, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, 0), fails_with(EINVAL));
}

TEST_CASE("futex: bits choose who is woken") {
    Word word{0};
    std::atomic<int> order{0};
    Thread one([&] {
        futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 1);
        order = order * 10 + 1;
    });
    Thread two([&] {
        futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 2);
        order = order * 10 + 2;
    });
    wait_until_blocked(::getpid(), one.tid());
    wait_until_blocked(::getpid(), two.tid());
    CHECK_THAT(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, nullptr, nullptr, 4),
               succeeds_with(0));
    CHECK_THAT(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, nullptr, nullptr, 2),
               succeeds_with(1));
    two.join();
    CHECK(order == 2);
    CHECK_THAT(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, nullptr, nullptr, 1),
               succeeds_with(1));
    one.join();
    CHECK(order == 21);
}

TEST_CASE("futex: requeue moves waiters to another word") {
    Word from{0}, to{0};
    std::atomic<int> woken{0};
    std::vector<std::unique_ptr<Thread>> threads;
    for (int i = 0; i < 3; ++i) {
        threads.push_back(std::make_unique<Thread>([&] {
            futex(&from, FUTEX_WAIT_PRIVATE, 0);
            ++woken;
        }));
        wait_until_blocked(::getpid(), threads.back()->tid());
    }
    CHECK_THAT(futex(&from, FUTEX_CMP_REQUEUE_PRIVATE, 1, reinterpret_cast<void*>(INT_MAX), &to, 5),
               fails_with(EAGAIN));
    CHECK_THAT(futex(&from, FUTEX_CMP_REQUEUE_PRIVATE, 1, reinterpret_cast<void*>(INT_MAX), &to, 0),
               succeeds_with(3));
    CHECK(eventually([&] { return woken == 1; }));
    CHECK_THAT(futex(&from, FUTEX_WAKE_PRIVATE, INT_MAX), succeeds_with(0));
    CHECK_THAT(futex(&to, FUTEX_WAKE_PRIVATE, INT_MAX), succeeds_with(2));
    threads.clear();
    CHECK(woken == 3);
}

TEST_CASE("futex: FUTEX_WAKE_OP changes the second word and wakes by its old value") {
    Word first{0}, second{3};
    Thread waiter([&] { futex(&second, FUTEX_WAIT_PRIVATE, 3); });
    wait_until_blocked(::getpid(), waiter.tid());
    // second += 4; wake its waiters when it was 3.
    const uint32_t op = FUTEX_OP(FUTEX_OP_ADD, 4, FUTEX_OP_CMP_EQ, 3);
    CHECK_THAT(futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, reinterpret_cast<void*>(1), &second, op),
               succeeds_with(1));
    waiter.join();
    CHECK(second == 7);
    CHECK_THAT(futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, reinterpret_cast<void*>(1), &second, op),
               succeeds_with(0));
    CHECK(second == 11);
}

TEST_CASE("futex: shared words work across processes and different addresses") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", std::string(4096, '\0')), O_RDWR);
    Mapping one(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    Mapping two(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    REQUIRE(one.data() != two.data());
    Child waiter([&] {
        auto* word = two.as<Word>(64);
        while (*word == 0) {
            futex(word, FUTEX_WAIT, 0);
        }
    });
    wait_until_blocked(waiter.pid());
    *one.as<Word>(64) = 1;
    CHECK_THAT(futex(one.as<Word>(64), FUTEX_WAKE, 1), succeeds_with(1));
    CHECK(waiter.wait() == exited(0));
}

TEST_CASE("futex: private words of two processes are different") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    Child waiter([&] { futex(page.as<Word>(), FUTEX_WAIT_PRIVATE, 0); });
    wait_until_blocked(waiter.pid());
    CHECK_THAT(futex(page.as<Word>(), FUTEX_WAKE_PRIVATE, 1), succeeds_with(0));
    CHECK(waiter.running());
}

TEST_CASE("futex: a signal interrupts the wait") {
    in_child([] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &action, nullptr);
        Word word{0};
        const pid_t pid = ::getpid();
        Child killer([=] {
            wait_until_blocked(pid);
            ::kill(pid, SIGUSR1);
        });
        CHILD_THAT(futex(&word, FUTEX_WAIT_PRIVATE, 0), fails_with(EINTR));
    });
}

/// A handler that counts, and the thread that runs it.
std::atomic<int> handled{0};

void count_signals(int flags) {
    struct sigaction action {};
    action.sa_handler = [](int) { ++handled; };
    action.sa_flags = flags;
    CHILD_THAT(::sigaction(SIGUSR1, &action, nullptr), succeeds());
}

TEST_CASE("futex: after a handler with SA_RESTART a wait goes on, one with a timeout does not") {
    in_child([] {
        count_signals(SA_RESTART);
        Word word{0};
        long untimed = -1, timed = -1, relative = -1;
        int timed_error = 0, relative_error = 0;
        const timespec until = seconds_from_now(CLOCK_MONOTONIC, 60), minute{60, 0};
        Thread first([&] { untimed = futex(&word, FUTEX_WAIT_PRIVATE, 0); });
        Thread second([&] {
            timed = futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, nullptr, ~0u);
            timed_error = errno;
        });
        Thread third([&] {
            relative = futex(&word, FUTEX_WAIT_PRIVATE, 0, &minute);
            relative_error = errno;
        });
        for (const Thread* thread : {&first, &second, &third}) {
            wait_until_blocked(::getpid(), thread->tid());
            CHILD_CHECK(::pthread_kill(thread->handle(), SIGUSR1) == 0);
        }
        second.join();
        third.join();
        CHILD_CHECK(timed == -1 && timed_error == EINTR);
        CHILD_CHECK(relative == -1 && relative_error == EINTR);
        CHILD_CHECK(eventually([] { return handled == 3; }));
        wait_until_blocked(::getpid(), first.tid());
        CHILD_THAT(futex(&word, FUTEX_WAKE_PRIVATE, 9), succeeds_with(1));
        first.join();
        CHILD_CHECK(untimed == 0);
    });
}

TEST_CASE("futex: sem_wait is interrupted by a handler without SA_RESTART") {
    in_child([] {
        count_signals(0);
        sem_t semaphore;
        ::sem_init(&semaphore, 0, 0);
        int result = 0, error = 0;
        Thread waiter([&] {
            result = ::sem_wait(&semaphore);
            error = errno;
        });
        wait_until_blocked(::getpid(), waiter.tid());
        ::pthread_kill(waiter.handle(), SIGUSR1);
        waiter.join();
        CHILD_CHECK(result == -1 && error == EINTR);
    });
}

TEST_CASE("futex: a process that is stopped and continued still waits") {
    Gate waiting, go_on;
    Child child([&] {
        Word word{0};
        const timespec until = seconds_from_now(CLOCK_MONOTONIC, 60);
        long timed = -1;
        Thread other(
            [&] { timed = futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, nullptr, ~0u); });
        Thread waker([&] {
            wait_until_blocked(::getpid(), other.tid());
            wait_until_blocked(::getpid());
            waiting.open();
            go_on.wait();
            wait_until_blocked(::getpid(), other.tid());
            wait_until_blocked(::getpid());
            CHILD_THAT(futex(&word, FUTEX_WAKE_PRIVATE, 9), succeeds_with(2));
        });
        CHILD_THAT(futex(&word, FUTEX_WAIT_PRIVATE, 0), succeeds_with(0));
        other.join();
        waker.join();
        CHILD_CHECK(timed == 0);
    });
    waiting.wait();
    CHECK_THAT(::kill(child.pid(), SIGSTOP), succeeds());
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    CHECK_THAT(::kill(child.pid(), SIGCONT), succeeds());
    go_on.open();
    CHECK(child.wait() == exited(0));
}

TEST_CASE("futex: threads that wait do not outlive their process, nor an execve") {
    CHECK(run_in_child([] {
              static Word word{0};
              Thread waiter([] { futex(&word, FUTEX_WAIT_PRIVATE, 0); });
              wait_until_blocked(::getpid(), waiter.tid());
              ::_exit(3);
          }) == exited(3));
    CHECK(run_in_child([] {
              static Word word{0};
              Thread waiter([] { futex(&word, FUTEX_WAIT_PRIVATE, 0); });
              wait_until_blocked(::getpid(), waiter.tid());
              ::execl("/bin/sh", "sh", "-c", "exit 4", nullptr);
          }) == exited(4));
}

TEST_CASE("futex: misaligned words, bad addresses and unknown operations fail") {
    Word words[2] = {};
    auto* misaligned = reinterpret_cast<Word*>(reinterpret_cast<char*>(words) + 2);
    CHECK_THAT(futex(misaligned, FUTEX_WAIT, 0), fails_with(EINVAL));
    CHECK_THAT(futex(misaligned, FUTEX_WAKE, 1), fails_with(EINVAL));
    CHECK_THAT(futex(bad<Word>(), FUTEX_WAIT, 0), fails_with(EFAULT));
    CHECK_THAT(futex(static_cast<Word*>(kernel_pointer()), FUTEX_WAIT, 0), fails_with(EFAULT));
    CHECK_THAT(futex(words, 77, 0), fails_with(ENOSYS));
    CHECK_THAT(futex(words, FUTEX_WAIT, 0, bad<void>()), fails_with(EFAULT));
}

TEST_CASE("futex: priority inheritance mutexes lock, refuse strangers and hand over") {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    REQUIRE(::pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    pthread_mutex_t mutex;
    const int made = ::pthread_mutex_init(&mutex, &attributes);
    SKIP_UNLESS(made == 0, "no priority inheritance futexes");
    REQUIRE(::pthread_mutex_lock(&mutex) == 0);
    bool got = false;
    Thread other([&] {
        CHECK(::pthread_mutex_trylock(&mutex) == EBUSY);
        ::pthread_mutex_lock(&mutex);
        got = true;
        ::pthread_mutex_unlock(&mutex);
    });
    wait_until_blocked(::getpid(), other.tid());
    CHECK(::pthread_mutex_unlock(&mutex) == 0);
    other.join();
    CHECK(got);
}

/// A mutex with an owner in shared memory.
class PiMutex {
  public:
    explicit PiMutex(int robust = PTHREAD_MUTEX_STALLED, int type = PTHREAD_MUTEX_NORMAL)
        : memory_(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS) {
        pthread_mutexattr_t attributes;
        ::pthread_mutexattr_init(&attributes);
        ::pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
        ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_mutexattr_setrobust(&attributes, robust);
        ::pthread_mutexattr_settype(&attributes, type);
        REQUIRE(::pthread_mutex_init(get(), &attributes) == 0);
    }
    pthread_mutex_t* get() const { return memory_.as<pthread_mutex_t>(); }
    int* counter() const { return memory_.as<int>(1024); }

  private:
    Mapping memory_;
};

TEST_CASE("futex: priority inheritance mutexes exclude, among threads and processes") {
    const PiMutex mutex;
    constexpr int kRounds = 2000;
    const auto work = [&] {
        for (int i = 0; i < kRounds; ++i) {
            ::pthread_mutex_lock(mutex.get());
            const int seen = *mutex.counter();
            if (i % 16 == 0) {
                ::sched_yield();
            }
            *mutex.counter() = seen + 1;
            ::pthread_mutex_unlock(mutex.get());
        }
    };
    {
        Child child([&] {
            Thread a(work);
            Thread b(work);
        });
        Thread c(work);
        Thread d(work);
        CHECK(child.wait() == exited(0));
    }
    CHECK(*mutex.counter() == 4 * kRounds);
}

TEST_CASE("futex: an owner that dies leaves a priority inheritance mutex to the next") {
    const PiMutex mutex(PTHREAD_MUTEX_ROBUST);
    Gate locked;
    Child owner([&] {
        ::pthread_mutex_lock(mutex.get());
        locked.open();
        ::pause();
    });
    locked.wait();
    int result = -1;
    Thread waiter([&] { result = ::pthread_mutex_lock(mutex.get()); });
    wait_until_blocked(::getpid(), waiter.tid());
    owner.kill(SIGKILL);
    waiter.join();
    CHECK(result == EOWNERDEAD);
    // And with nobody waiting at that time.
    const PiMutex quiet(PTHREAD_MUTEX_ROBUST);
    in_child([&] { ::pthread_mutex_lock(quiet.get()); });
    CHECK(::pthread_mutex_lock(quiet.get()) == EOWNERDEAD);
    CHECK(::pthread_mutex_consistent(quiet.get()) == 0);
    CHECK(::pthread_mutex_unlock(quiet.get()) == 0);
    CHECK(::pthread_mutex_lock(quiet.get()) == 0);
    CHECK(::pthread_mutex_unlock(quiet.get()) == 0);
}

TEST_CASE("futex: priority inheritance locks time out and refuse what cannot be") {
    const PiMutex mutex(PTHREAD_MUTEX_STALLED, PTHREAD_MUTEX_ERRORCHECK);
    REQUIRE(::pthread_mutex_lock(mutex.get()) == 0);
    CHECK(::pthread_mutex_lock(mutex.get()) == EDEADLK);
    int result = 0;
    Thread other([&] {
        timespec soon{};
        ::clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_sec += soon.tv_nsec >= 980'000'000 ? 1 : 0;
        soon.tv_nsec = (soon.tv_nsec + 20'000'000) % 1'000'000'000;
        result = ::pthread_mutex_timedlock(mutex.get(), &soon);
    });
    other.join();
    CHECK(result == ETIMEDOUT);
    CHECK(::pthread_mutex_unlock(mutex.get()) == 0);
    Word word{0};
    CHECK_THAT(::syscall(SYS_futex, &word, FUTEX_UNLOCK_PI, 0, nullptr, nullptr, 0),
               fails_with(EPERM));
    CHECK_THAT(::syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, nullptr, nullptr, 0), succeeds());
    CHECK((word & FUTEX_TID_MASK) == static_cast<uint32_t>(gettid_now()));
    CHECK_THAT(::syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, nullptr, nullptr, 0),
               fails_with(EDEADLK));
    CHECK_THAT(::syscall(SYS_futex, &word, FUTEX_UNLOCK_PI, 0, nullptr, nullptr, 0), succeeds());
    CHECK((word & FUTEX_TID_MASK) == 0);
    word = 0x3ffffff0;  // nobody
    CHECK_THAT(::syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, nullptr, nullptr, 0),
               fails_with(ESRCH));
    CHECK_THAT(::syscall(SYS_futex, bad<uint32_t>(), FUTEX_LOCK_PI, 0, nullptr, nullptr, 0),
               fails_with(EFAULT));
}

TEST_CASE("futex: timed locks of libc time out") {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    ::pthread_mutex_lock(&mutex);
    int result = 0;
    Thread other([&] {
        const timespec past = seconds_from_now(CLOCK_REALTIME, -1);
        result = ::pthread_mutex_timedlock(&mutex, &past);
    });
    other.join();
    CHECK(result == ETIMEDOUT);
    ::pthread_mutex_unlock(&mutex);
}

TEST_CASE("futex: ping-pong of two threads loses no wake-up") {
    Word turn{0};
    constexpr uint32_t kRounds = 5000;
    const auto player = [&](uint32_t me) {
        for (uint32_t i = 0; i < kRounds; ++i) {
            uint32_t now;
            while ((now = turn.load()) % 2 != me) {
                futex(&turn, FUTEX_WAIT_PRIVATE, now);
            }
            turn = now + 1;
            futex(&turn, FUTEX_WAKE_PRIVATE, 1);
        }
    };
    {
        Thread a([&] { player(0); });
        Thread b([&] { player(1); });
    }
    CHECK(turn == 2 * kRounds);
}

TEST_CASE("set_tid_address: the word is cleared and woken when the thread ends") {
    Word word{123};
    Thread thread([&] {
        CHILD_CHECK(::syscall(SYS_set_tid_address, &word) == gettid_now());
        // Leaves without libc, which waits for the address it had registered itself.
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    });
    while (word == 123) {
        futex(&word, FUTEX_WAIT, 123);
    }
    CHECK(word == 0);
    // libc's join waits on its own word, which nobody clears now.
    thread.forget();
}

TEST_CASE("arch_prctl: FS is where libc put it, GS can be set and survives calls") {
    unsigned long fs = 0, gs = 1;
    CHECK_THAT(::syscall(SYS_arch_prctl, ARCH_GET_FS, &fs), succeeds());
    unsigned long from_register;
    asm volatile("mov %%fs:0, %0" : "=r"(from_register));
    CHECK(fs == from_register);
    in_child([&] {
        static unsigned long value = 0x1234;
        CHILD_THAT(::syscall(SYS_arch_prctl, ARCH_SET_GS, &value), succeeds());
        unsigned long read = 0;
        ::sched_yield();
        asm volatile("mov %%gs:0, %0" : "=r"(read));
        CHILD_CHECK(read == 0x1234);
        CHILD_THAT(::syscall(SYS_arch_prctl, ARCH_GET_GS, &gs), succeeds());
        CHILD_CHECK(gs == reinterpret_cast<unsigned long>(&value));
        Child child([] {
            unsigned long inherited = 0;
            asm volatile("mov %%gs:0, %0" : "=r"(inherited));
            CHILD_CHECK(inherited == 0x1234);
        });
        CHILD_CHECK(child.wait() == exited(0));
    });
    CHECK_THAT(::syscall(SYS_arch_prctl, ARCH_SET_FS, ~0UL << 47), fails_with(EPERM));
    CHECK_THAT(::syscall(SYS_arch_prctl, ARCH_GET_FS, bad<long>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_arch_prctl, 0x9999, 0), fails_with(EINVAL));
}

TEST_CASE("sched: yield works, affinity has at least one processor") {
    CHECK_THAT(::sched_yield(), succeeds());
    cpu_set_t set;
    REQUIRE_THAT(::sched_getaffinity(0, sizeof set, &set), succeeds());
    CHECK(CPU_COUNT(&set) >= 1);
    CHECK_THAT(::syscall(SYS_sched_getaffinity, 0, 1, &set), fails_with(EINVAL));
    CHECK_THAT(::sched_getaffinity(0x7ffffff0, sizeof set, &set), fails_with(ESRCH));
}

TEST_CASE("gettid: exiting threads leave the process, the last status counts") {
    CHECK(run_in_child([] {
              Thread* thread = new Thread([] { ::syscall(SYS_exit, 5); });
              // The thread is gone once its directory is.
              const pid_t tid = thread->tid();
              CHILD_CHECK(eventually([=] { return thread_state(::getpid(), tid) == 0; }));
              ::_exit(6);
          }) == exited(6));
}

}  // namespace
