// mq_open(3) and its like.

#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

std::string own_name(const char* what) {
    return "/guest-" + std::to_string(::getpid()) + "-" + what;
}

/// A queue that is unlinked at the end.
class Queue {
  public:
    explicit Queue(const char* what, long messages = 4, long size = 64, int flags = O_NONBLOCK,
                   mode_t mode = 0600)
        : name_(own_name(what)) {
        mq_attr attributes{};
        attributes.mq_maxmsg = messages;
        attributes.mq_msgsize = size;
        fd_ = ::mq_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL | flags, mode, &attributes);
        if (fd_ < 0) {
            fatal("mq_open: " + errno_name(errno));
        }
    }
    ~Queue() {
        ::mq_close(fd_);
        ::mq_unlink(name_.c_str());
    }
    mqd_t fd() const { return fd_; }
    const char* name() const { return name_.c_str(); }
    int send(const std::string& text, unsigned priority = 0) const {
        return ::mq_send(fd_, text.data(), text.size(), priority);
    }
    /// "priority:text", or the error's name.
    std::string receive() const {
        char text[8192];
        unsigned priority = 0;
        const ssize_t n = ::mq_receive(fd_, text, sizeof text, &priority);
        return n < 0 ? errno_name(errno)
                     : std::to_string(priority) + ":" + std::string(text, static_cast<size_t>(n));
    }
    long count() const {
        mq_attr now{};
        ::mq_getattr(fd_, &now);
        return now.mq_curmsgs;
    }

  private:
    std::string name_;
    mqd_t fd_;
};

TEST_CASE("mqueue: by priority, and in order within one") {
    const Queue queue("order");
    CHECK_THAT(queue.send("a", 1), succeeds());
    CHECK_THAT(queue.send("b", 5), succeeds());
    CHECK_THAT(queue.send("c", 5), succeeds());
    CHECK_THAT(queue.send("", 0), succeeds());
    CHECK(queue.count() == 4);
    CHECK_THAT(queue.send("full", 9), fails_with(EAGAIN));
    CHECK(queue.receive() == "5:b");
    CHECK(queue.receive() == "5:c");
    CHECK(queue.receive() == "1:a");
    CHECK(queue.receive() == "0:");
    CHECK(queue.receive() == "EAGAIN");
}

TEST_CASE("mqueue: attributes and the flag of a description") {
    const Queue queue("attributes", 3, 100, 0);
    mq_attr now{};
    REQUIRE_THAT(::mq_getattr(queue.fd(), &now), succeeds());
    CHECK(now.mq_flags == 0);
    CHECK(now.mq_maxmsg == 3);
    CHECK(now.mq_msgsize == 100);
    CHECK(now.mq_curmsgs == 0);
    mq_attr wanted{};
    wanted.mq_flags = O_NONBLOCK;
    wanted.mq_maxmsg = 99;  // not looked at
    CHECK_THAT(::mq_setattr(queue.fd(), &wanted, &now), succeeds());
    CHECK(now.mq_flags == 0);
    CHECK_THAT(::mq_getattr(queue.fd(), &now), succeeds());
    CHECK(now.mq_flags == O_NONBLOCK);
    CHECK(now.mq_maxmsg == 3);
    CHECK((::fcntl(queue.fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(queue.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    wanted.mq_flags = O_APPEND;
    CHECK_THAT(::mq_setattr(queue.fd(), &wanted, nullptr), fails_with(EINVAL));
}

TEST_CASE("mqueue: a receiver sleeps until a message comes") {
    const Queue queue("receiver", 4, 64, 0);
    Child child([&] { CHILD_CHECK(queue.receive() == "3:hello"); });
    wait_until_blocked(child.pid());
    CHECK_THAT(queue.send("hello", 3), succeeds());
    CHECK(queue.count() == 0);  // it went straight to the sleeper
    CHECK(child.wait() == exited(0));
}

TEST_CASE("mqueue: a sender sleeps while the queue is full") {
    const Queue queue("sender", 1, 64, 0);
    CHECK_THAT(queue.send("first"), succeeds());
    Child child([&] { CHILD_THAT(queue.send("second", 1), succeeds()); });
    wait_until_blocked(child.pid());
    CHECK(queue.receive() == "0:first");
    CHECK(queue.count() == 1);
    CHECK(child.wait() == exited(0));
    CHECK(queue.receive() == "1:second");
}

TEST_CASE("mqueue: waiting ends at a time of the clock") {
    const Queue queue("timeout", 1, 64, 0);
    timespec soon{};
    ::clock_gettime(CLOCK_REALTIME, &soon);
    char text[64];
    CHECK_THAT(::mq_timedreceive(queue.fd(), text, sizeof text, nullptr, &soon),
               fails_with(ETIMEDOUT));
    soon.tv_nsec += 20'000'000;
    if (soon.tv_nsec >= 1'000'000'000) {
        soon.tv_nsec -= 1'000'000'000;
        soon.tv_sec++;
    }
    CHECK_THAT(::mq_timedreceive(queue.fd(), text, sizeof text, nullptr, &soon),
               fails_with(ETIMEDOUT));
    queue.send("x");
    CHECK_THAT(::mq_timedsend(queue.fd(), "y", 1, 0, &soon), fails_with(ETIMEDOUT));
    const timespec wrong{0, -1};
    CHECK_THAT(::mq_timedreceive(queue.fd(), text, sizeof text, nullptr, &wrong),
               fails_with(EINVAL));
    CHECK(queue.count() == 1);
}

TEST_CASE("mqueue: poll") {
    const Queue queue("poll", 1);
    pollfd entry{queue.fd(), POLLIN | POLLOUT, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK(entry.revents == POLLOUT);
    queue.send("x");
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK(entry.revents == POLLIN);
    queue.receive();
    Child child([&] {
        pollfd waited{queue.fd(), POLLIN, 0};
        CHILD_THAT(::poll(&waited, 1, kPatienceSeconds * 1000), succeeds_with(1));
    });
    wait_until_blocked(child.pid());
    queue.send("y");
    CHECK(child.wait() == exited(0));
}

TEST_CASE("mqueue: names") {
    const std::string name = own_name("names");
    CHECK_THAT(::mq_open(name.c_str(), O_RDWR), fails_with(ENOENT));
    CHECK_THAT(::mq_unlink(name.c_str()), fails_with(ENOENT));
    const Queue queue("names");
    CHECK_THAT(::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, nullptr),
               fails_with(EEXIST));
    const FileDescriptor again(::mq_open(name.c_str(), O_RDONLY | O_CREAT, 0600, nullptr));
    CHECK(again.valid());
    queue.send("same");
    char text[64];
    CHECK_THAT(::mq_receive(again.get(), text, sizeof text, nullptr), succeeds_with(4));
    CHECK_THAT(::mq_send(again.get(), "x", 1, 0), fails_with(EBADF));
    CHECK_THAT(::syscall(SYS_mq_open, "a/b", O_RDWR, 0, nullptr), fails_with(EACCES));
    CHECK_THAT(::syscall(SYS_mq_open, "", O_RDWR, 0, nullptr), fails_with(ENOENT));
    CHECK_THAT(::syscall(SYS_mq_open, std::string(256, 'n').c_str(), O_RDWR, 0, nullptr),
               fails_with(ENAMETOOLONG));
    // Unlinked, it lives as long as it is open.
    CHECK_THAT(::mq_unlink(name.c_str()), succeeds());
    CHECK_THAT(::mq_open(name.c_str(), O_RDWR), fails_with(ENOENT));
    queue.send("still");
    CHECK_THAT(::mq_receive(again.get(), text, sizeof text, nullptr), succeeds_with(5));
}

TEST_CASE("mqueue: wrong arguments fail") {
    const Queue queue("wrong", 2, 16);
    CHECK_THAT(queue.send(std::string(17, 'x')), fails_with(EMSGSIZE));
    CHECK_THAT(queue.send("x", 32768), fails_with(EINVAL));
    CHECK_THAT(queue.send("x", 32767), succeeds());
    char text[64];
    CHECK_THAT(::mq_receive(queue.fd(), text, 15, nullptr), fails_with(EMSGSIZE));
    CHECK_THAT(::mq_send(queue.fd(), bad<char>(), 4, 0), fails_with(EFAULT));
    const TempDir directory;
    const FileDescriptor file = open_file(directory.file("x"), O_RDWR);
    CHECK_THAT(::mq_send(file.get(), "x", 1, 0), fails_with(EBADF));
    mq_attr attributes{};
    attributes.mq_maxmsg = 0;
    attributes.mq_msgsize = 16;
    CHECK_THAT(::mq_open(own_name("zero").c_str(), O_RDWR | O_CREAT, 0600, &attributes),
               fails_with(EINVAL));
}

TEST_CASE("mqueue: limits hold for users") {
    SKIP_UNLESS(::geteuid() == 0, "needs root");
    in_child([&] {
        const rlimit limit{20000, 20000};
        CHILD_THAT(::setrlimit(RLIMIT_MSGQUEUE, &limit), succeeds());
        CHILD_THAT(::setuid(4243), succeeds());
        mq_attr attributes{};
        attributes.mq_maxmsg = 11;
        attributes.mq_msgsize = 16;
        const std::string many = own_name("many"), large = own_name("large");
        CHILD_THAT(::mq_open(many.c_str(), O_RDWR | O_CREAT, 0600, &attributes),
                   fails_with(EINVAL));
        attributes.mq_maxmsg = 10;
        attributes.mq_msgsize = 8192;
        CHILD_THAT(::mq_open(large.c_str(), O_RDWR | O_CREAT, 0600, &attributes),
                   fails_with(EMFILE));
        attributes.mq_msgsize = 1024;
        CHILD_THAT(::mq_open(large.c_str(), O_RDWR | O_CREAT, 0600, &attributes), succeeds());
        CHILD_THAT(::mq_open(many.c_str(), O_RDWR | O_CREAT, 0600, &attributes),
                   fails_with(EMFILE));
        CHILD_THAT(::mq_unlink(large.c_str()), succeeds());
    });
}

TEST_CASE("mqueue: permissions are those of the mode") {
    SKIP_UNLESS(::geteuid() == 0, "needs root");
    const Queue queue("permissions", 2, 16, O_NONBLOCK, 0604);
    struct stat st {};
    REQUIRE_THAT(::fstat(queue.fd(), &st), succeeds());
    CHECK((st.st_mode & 07777) == 0604);
    CHECK(st.st_size == 80);
    in_child([&] {
        CHILD_THAT(::setgid(4242), succeeds());
        CHILD_THAT(::setuid(4242), succeeds());
        CHILD_THAT(::mq_open(queue.name(), O_RDWR), fails_with(EACCES));
        CHILD_THAT(::mq_open(queue.name(), O_RDONLY), succeeds());
        CHILD_THAT(::mq_unlink(queue.name()), fails_with_any({EPERM, EACCES}));
    });
}

volatile sig_atomic_t told_value = 0, told_code = 0, told_pid = 0;
void on_told(int, siginfo_t* info, void*) {
    told_value = info->si_value.sival_int;
    told_code = info->si_code;
    told_pid = info->si_pid;
}

TEST_CASE("mqueue: a signal tells of a message that comes to an empty queue, once") {
    const Queue queue("notify");
    in_child([&] {
        struct sigaction action {};
        action.sa_sigaction = on_told;
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGUSR2, &action, nullptr);
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR2;
        event.sigev_value.sival_int = 77;
        CHILD_THAT(::mq_notify(queue.fd(), &event), succeeds());
        CHILD_THAT(::mq_notify(queue.fd(), &event), fails_with(EBUSY));
        CHILD_THAT(queue.send("one"), succeeds());
        CHILD_CHECK(told_value == 77);
        CHILD_CHECK(told_code == SI_MESGQ);
        CHILD_CHECK(told_pid == ::getpid());
        told_value = 0;
        // The wish is spent; and a queue that is not empty tells nobody.
        CHILD_THAT(queue.send("two"), succeeds());
        CHILD_CHECK(told_value == 0);
        CHILD_THAT(::mq_notify(queue.fd(), &event), succeeds());
        CHILD_THAT(queue.send("three"), succeeds());
        CHILD_CHECK(told_value == 0);
        CHILD_THAT(::mq_notify(queue.fd(), nullptr), succeeds());
        CHILD_THAT(::mq_notify(queue.fd(), &event), succeeds());
        event.sigev_signo = 99;
        CHILD_THAT(::mq_notify(queue.fd(), &event), fails_with(EINVAL));
    });
    // The child is gone, and its wish with it.
    sigevent none{};
    none.sigev_notify = SIGEV_NONE;
    CHECK_THAT(::mq_notify(queue.fd(), &none), succeeds());
    CHECK_THAT(::mq_notify(queue.fd(), nullptr), succeeds());
}

TEST_CASE("mqueue: a process that sleeps in a receive is served before anybody is told") {
    const Queue queue("served", 4, 64, 0);
    sigevent none{};
    none.sigev_notify = SIGEV_NONE;
    REQUIRE_THAT(::mq_notify(queue.fd(), &none), succeeds());
    Child child([&] { CHILD_CHECK(queue.receive() == "0:x"); });
    wait_until_blocked(child.pid());
    CHECK_THAT(queue.send("x"), succeeds());
    CHECK(child.wait() == exited(0));
    CHECK_THAT(::mq_notify(queue.fd(), &none), fails_with(EBUSY));  // still there
}

TEST_CASE("mqueue: the file system lists queues") {
    const TempDir own;
    const bool mounted = ::mount("none", own.path().c_str(), "mqueue", 0, nullptr) == 0;
    const std::string directory = mounted ? own.path() : "/dev/mqueue";
    struct statfs fs {};
    constexpr long kMqueueMagic = 0x19800202;
    SKIP_UNLESS(::statfs(directory.c_str(), &fs) == 0 && fs.f_type == kMqueueMagic,
                "may not mount, and /dev/mqueue is none");
    {
        const Queue queue("listed", 4, 64);
        queue.send("12345");
        const std::string file = directory + queue.name();
        CHECK(read_file(file).substr(0, 17) == "QSIZE:5          ");
        CHECK_THAT(::unlink(file.c_str()), succeeds());
        CHECK_THAT(::mq_open(queue.name(), O_RDWR), fails_with(ENOENT));
    }
    {
        // A file that is made there is a queue.
        const std::string name = own_name("made");
        const FileDescriptor made(::open((directory + name).c_str(), O_RDWR | O_CREAT, 0600));
        CHECK(made.valid());
        mq_attr now{};
        CHECK_THAT(::mq_getattr(made.get(), &now), succeeds());
        CHECK(now.mq_maxmsg == 10);
        CHECK(now.mq_msgsize == 8192);
        CHECK_THAT(::mq_send(made.get(), "x", 1, 0), succeeds());
        CHECK_THAT(::mq_unlink(name.c_str()), succeeds());
    }
    if (mounted) {
        ::umount2(own.path().c_str(), MNT_DETACH);
    }
}

}  // namespace
