// msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

#include <signal.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct Message {
    long type;
    char text[9000];
};

/// A queue that is removed at the end.
class Queue {
  public:
    explicit Queue(key_t key = IPC_PRIVATE, int flags = IPC_CREAT | 0600)
        : id_(::msgget(key, flags)) {
        if (id_ < 0) {
            fatal("msgget: " + errno_name(errno));
        }
    }
    ~Queue() { ::msgctl(id_, IPC_RMID, nullptr); }
    int id() const { return id_; }
    int send(long type, const std::string& text, int flags = IPC_NOWAIT) const {
        Message m{};
        m.type = type;
        std::memcpy(m.text, text.data(), text.size());
        return ::msgsnd(id_, &m, text.size(), flags);
    }
    /// "type:text", or the error's name.
    std::string receive(long type, int flags = IPC_NOWAIT, size_t size = 9000) const {
        Message m{};
        const ssize_t n = ::msgrcv(id_, &m, size, type, flags);
        return n < 0 ? errno_name(errno)
                     : std::to_string(m.type) + ":" + std::string(m.text, static_cast<size_t>(n));
    }
    msqid_ds stat() const {
        msqid_ds ds{};
        if (::msgctl(id_, IPC_STAT, &ds) != 0) {
            fatal("IPC_STAT: " + errno_name(errno));
        }
        return ds;
    }

  private:
    int id_;
};

key_t unused_key() {
    for (key_t key = 0x6d710000 + ::getpid();; key += 0x10000) {
        if (::msgget(key, 0) < 0 && errno == ENOENT) {
            return key;
        }
    }
}

TEST_CASE("msg: first in, first out, and by type") {
    const Queue queue;
    for (const auto& [type, text] : {std::pair{3, "a"}, {1, "b"}, {2, "c"}, {1, "d"}, {5, "e"}}) {
        REQUIRE_THAT(queue.send(type, text), succeeds());
    }
    CHECK(queue.stat().msg_qnum == 5);
    CHECK(queue.receive(1) == "1:b");
    CHECK(queue.receive(-3) == "1:d");  // the lowest
    CHECK(queue.receive(-3) == "2:c");
    CHECK(queue.receive(3, IPC_NOWAIT | MSG_EXCEPT) == "5:e");
    CHECK(queue.receive(4) == "ENOMSG");
    CHECK(queue.receive(0) == "3:a");
    CHECK(queue.receive(0) == "ENOMSG");
    const msqid_ds ds = queue.stat();
    CHECK(ds.msg_qnum == 0);
    CHECK(ds.__msg_cbytes == 0);
    CHECK(ds.msg_lspid == ::getpid());
    CHECK(ds.msg_lrpid == ::getpid());
    CHECK(ds.msg_stime >= ds.msg_ctime);
    CHECK(ds.msg_rtime >= ds.msg_stime);
}

TEST_CASE("msg: one that is too long stays, or is cut") {
    const Queue queue;
    queue.send(1, "0123456789");
    CHECK(queue.receive(0, IPC_NOWAIT, 4) == "E2BIG");
    CHECK(queue.stat().msg_qnum == 1);
    CHECK(queue.receive(0, IPC_NOWAIT | MSG_NOERROR, 4) == "1:0123");
    CHECK(queue.stat().msg_qnum == 0);
    CHECK_THAT(queue.send(1, ""), succeeds());
    CHECK(queue.receive(0) == "1:");
}

TEST_CASE("msg: MSG_COPY looks without taking") {
    const Queue queue;
    queue.send(7, "one");
    queue.send(8, "two");
    const std::string first = queue.receive(0, IPC_NOWAIT | MSG_COPY);
    SKIP_UNLESS(first != "ENOSYS", "a kernel without checkpoints");
    CHECK(first == "7:one");
    CHECK(queue.receive(1, IPC_NOWAIT | MSG_COPY) == "8:two");
    CHECK(queue.receive(2, IPC_NOWAIT | MSG_COPY) == "ENOMSG");
    CHECK(queue.receive(0, MSG_COPY) == "EINVAL");
    CHECK(queue.receive(0, IPC_NOWAIT | MSG_COPY | MSG_EXCEPT) == "EINVAL");
    CHECK(queue.stat().msg_qnum == 2);
}

TEST_CASE("msg: a receiver sleeps until its type comes") {
    const Queue queue;
    Child child([&] { CHILD_CHECK(queue.receive(2, 0) == "2:for you"); });
    wait_until_blocked(child.pid());
    CHECK_THAT(queue.send(1, "not for you"), succeeds());
    CHECK(child.running());
    CHECK_THAT(queue.send(2, "for you"), succeeds());
    // Given to the sleeper at once.
    CHECK(queue.stat().msg_qnum == 1);
    CHECK(queue.receive(2) == "ENOMSG");
    CHECK(child.wait() == exited(0));
    CHECK(queue.stat().msg_lrpid == child.pid());
}

TEST_CASE("msg: a sleeper whose buffer is too small gets E2BIG, and the message stays") {
    const Queue queue;
    Child child([&] { CHILD_CHECK(queue.receive(0, 0, 3) == "E2BIG"); });
    wait_until_blocked(child.pid());
    CHECK_THAT(queue.send(1, "long"), succeeds());
    CHECK(child.wait() == exited(0));
    CHECK(queue.receive(0) == "1:long");
}

TEST_CASE("msg: a full queue makes senders wait") {
    const Queue queue;
    msqid_ds ds = queue.stat();
    ds.msg_qbytes = 100;
    REQUIRE_THAT(::msgctl(queue.id(), IPC_SET, &ds), succeeds());
    CHECK_THAT(queue.send(1, std::string(60, 'x')), succeeds());
    CHECK_THAT(queue.send(1, std::string(60, 'y')), fails_with(EAGAIN));
    Child child([&] { CHILD_THAT(queue.send(2, std::string(60, 'z'), 0), succeeds()); });
    wait_until_blocked(child.pid());
    CHECK(queue.receive(0) == "1:" + std::string(60, 'x'));
    CHECK(child.wait() == exited(0));
    CHECK(queue.receive(0) == "2:" + std::string(60, 'z'));
}

TEST_CASE("msg: removal wakes sleepers with EIDRM") {
    const int id = ::msgget(IPC_PRIVATE, 0600);
    REQUIRE(id >= 0);
    msqid_ds ds{};
    ::msgctl(id, IPC_STAT, &ds);
    ds.msg_qbytes = 10;
    REQUIRE_THAT(::msgctl(id, IPC_SET, &ds), succeeds());
    Message m{};
    m.type = 1;
    REQUIRE_THAT(::msgsnd(id, &m, 10, 0), succeeds());
    Child receiver([&] {
        Message in{};
        CHILD_THAT(::msgrcv(id, &in, 10, 2, 0), fails_with(EIDRM));
    });
    Child sender([&] {
        Message out{};
        out.type = 1;
        CHILD_THAT(::msgsnd(id, &out, 5, 0), fails_with(EIDRM));
    });
    wait_until_blocked(receiver.pid());
    wait_until_blocked(sender.pid());
    CHECK_THAT(::msgctl(id, IPC_RMID, nullptr), succeeds());
    CHECK(receiver.wait() == exited(0));
    CHECK(sender.wait() == exited(0));
    CHECK_THAT(::msgrcv(id, &m, 10, 0, 0), fails_with(EINVAL));
}

void nothing(int) {}

TEST_CASE("msg: a handler interrupts a receiver") {
    const Queue queue;
    Child child([&] {
        struct sigaction action {};
        action.sa_handler = nothing;
        action.sa_flags = SA_RESTART;
        ::sigaction(SIGUSR1, &action, nullptr);
        CHILD_CHECK(queue.receive(0, 0) == "EINTR");
    });
    wait_until_blocked(child.pid());
    child.kill(SIGUSR1);
    CHECK(child.wait() == exited(0));
    CHECK_THAT(queue.send(1, "kept"), succeeds());
    CHECK(queue.receive(0) == "1:kept");
}

TEST_CASE("msg: keys and wrong arguments") {
    const key_t key = unused_key();
    const Queue queue(key);
    CHECK_THAT(::msgget(key, 0), succeeds_with(queue.id()));
    CHECK_THAT(::msgget(key, IPC_CREAT | IPC_EXCL), fails_with(EEXIST));
    CHECK_THAT(queue.send(0, "x"), fails_with(EINVAL));
    CHECK_THAT(queue.send(-1, "x"), fails_with(EINVAL));
    CHECK_THAT(queue.send(1, std::string(8193, 'x')), fails_with(EINVAL));
    CHECK_THAT(queue.send(1, std::string(8192, 'x')), succeeds());
    Message m{};
    CHECK_THAT(::msgrcv(queue.id(), &m, static_cast<size_t>(-1), 0, IPC_NOWAIT),
               fails_with(EINVAL));
    CHECK_THAT(::msgsnd(queue.id(), bad<Message>(), 1, 0), fails_with(EFAULT));
    CHECK_THAT(::msgctl(queue.id(), 99, nullptr), fails_with(EINVAL));
    CHECK_THAT(::msgsnd(-1, &m, 1, 0), fails_with(EINVAL));
    CHECK_THAT(::msgrcv(queue.id(), bad<Message>(), 8192, 0, IPC_NOWAIT), fails_with(EFAULT));
    CHECK(queue.stat().msg_qnum == 0);  // as on Linux, it is lost
}

TEST_CASE("msg: what all queues hold is bounded, whatever their number") {
    SKIP_UNLESS(running_in_sentry(), "fills a kernel's memory");
    std::vector<std::unique_ptr<Queue>> queues;
    size_t held = 0;
    const std::string text(8192, 'x');
    int error = 0;
    while (error == 0 && held < (256u << 20)) {
        queues.push_back(std::make_unique<Queue>());
        while (queues.back()->send(1, text) == 0) {
            held += text.size();
        }
        error = errno == EAGAIN ? 0 : errno;
    }
    CHECK(error == ENOMEM);
    CHECK(held > (32u << 20));
    CHECK(held <= (64u << 20));
    // Semaphores and POSIX queues live off the same, and what is there goes on.
    CHECK_THAT(::semget(IPC_PRIVATE, 32000, 0600), fails_with(ENOMEM));
    CHECK(queues.front()->receive(0) == "1:" + text);
    CHECK_THAT(queues.front()->send(2, text), succeeds());
    queues.clear();
    const Queue again;
    CHECK_THAT(again.send(1, text), succeeds());
}

TEST_CASE("msg: permissions are those of the mode") {
    SKIP_UNLESS(::geteuid() == 0, "needs root");
    const Queue queue(IPC_PRIVATE, IPC_CREAT | 0602);
    in_child([&] {
        CHILD_THAT(::setgid(4242), succeeds());
        CHILD_THAT(::setuid(4242), succeeds());
        CHILD_THAT(queue.send(1, "x"), succeeds());
        CHILD_CHECK(queue.receive(0) == "EACCES");
        CHILD_THAT(::msgctl(queue.id(), IPC_RMID, nullptr), fails_with(EPERM));
    });
    CHECK(queue.receive(0) == "1:x");
}

TEST_CASE("msg: MSG_STAT, MSG_INFO and /proc list what there is") {
    const Queue queue;
    queue.send(1, "12345");
    struct msginfo info {};
    const int highest = ::msgctl(0, MSG_INFO, reinterpret_cast<msqid_ds*>(&info));
    REQUIRE(highest >= 0);
    CHECK(info.msgpool >= 1);
    bool found = false;
    for (int i = 0; i <= highest; i++) {
        msqid_ds ds{};
        if (::msgctl(i, MSG_STAT, &ds) == queue.id()) {
            found = ds.__msg_cbytes == 5;
        }
    }
    CHECK(found);
    CHECK_THAT(::msgctl(0, IPC_INFO, reinterpret_cast<msqid_ds*>(&info)), succeeds_with(highest));
    CHECK(read_file("/proc/sys/kernel/msgmax") == std::to_string(info.msgmax) + "\n");
    CHECK(read_file("/proc/sys/kernel/msgmnb") == std::to_string(info.msgmnb) + "\n");
    CHECK(read_file("/proc/sys/kernel/msgmni") == std::to_string(info.msgmni) + "\n");
    char line[128];
    std::snprintf(line, sizeof line, "         0 %10d   600  %10d %10d", queue.id(), 5, 1);
    CHECK_MESSAGE(read_file("/proc/sysvipc/msg").find(line) != std::string::npos, line);
}

}  // namespace
