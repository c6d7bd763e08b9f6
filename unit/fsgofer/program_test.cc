// The program itself, started as the runtime starts it: root, in namespaces of its own.

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "fsgofer/server/confine.h"
#include "fsgofer/server/plan.h"
#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

namespace {

/// moat-gofer with a plan. Like the runtime it is forked twice, because a pid namespace begins with
/// the next child; the one in between waits for it and passes its exit status on.
class Program {
  public:
    explicit Program(const std::string& plan) {
        SocketPair channel = make_channel();
        const ScopedFd plan_fd(::memfd_create("plan", MFD_CLOEXEC));
        REQUIRE(::write(plan_fd.get(), plan.data(), plan.size()) ==
                static_cast<ssize_t>(plan.size()));
        REQUIRE(::lseek(plan_fd.get(), 0, SEEK_SET) == 0);
        int pids[2];
        REQUIRE(::pipe2(pids, O_CLOEXEC) == 0);
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            channel.ours.reset();
            if (::unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
                          CLONE_NEWPID) != 0) {
                ::_exit(77);
            }
            const pid_t inner = ::fork();
            if (inner == 0) {
                // The fourth is an intruder: a descriptor that the parent forgot to close.
                if (::dup2(channel.theirs.get(), 50) != 50 || ::dup2(plan_fd.get(), 51) != 51 ||
                    ::dup2(STDERR_FILENO, 52) != 52) {
                    ::_exit(78);
                }
                ::execl(MOAT_GOFER_PATH, "moat-gofer", "--socket-fd", "50", "--plan-fd", "51",
                        static_cast<char*>(nullptr));
                ::_exit(79);
            }
            channel.theirs.reset();
            if (::write(pids[1], &inner, sizeof inner) != sizeof inner) {
                ::_exit(80);
            }
            int status = 0;
            ::waitpid(inner, &status, 0);
            ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status));
        }
        ::close(pids[1]);
        const ssize_t n = ::read(pids[0], &server_, sizeof server_);
        ::close(pids[0]);
        if (n != sizeof server_) {
            skipped_ = true;
            return;
        }
        channel.theirs.reset();
        socket_ = std::move(channel.ours);
    }
    ~Program() {
        socket_.reset();
        if (pid_ > 0) {
            ::waitpid(pid_, nullptr, 0);
        }
    }

    bool skipped() const {
        if (skipped_) {
            MESSAGE("skipped: no right to make namespaces here");
        }
        return skipped_;
    }
    pid_t server() const { return server_; }
    ScopedFd& socket() { return socket_; }
    Result<std::unique_ptr<Client>> connect() {
        return Client::connect(std::move(socket_), &message);
    }
    int exit_code() {
        const int status = wait_for(std::exchange(pid_, -1));
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    std::string message;

  private:
    ScopedFd socket_;
    pid_t pid_ = -1;
    pid_t server_ = -1;
    bool skipped_ = false;
};

std::string one_mount(const std::string& source, const std::string& more = "") {
    return R"({"id": "t1", "mounts": [{"source": ")" + source + R"(", "destination": "/")" + more +
           "}]}";
}

/// Tries to look at an absolute path as the gofer's root sees it, from outside.
std::string root_of(pid_t pid) { return "/proc/" + std::to_string(pid) + "/root"; }

}  // namespace

TEST_CASE("program: serves its mounts, a single file among them, and exits when the sentry goes") {
    TempDir dir;
    dir.file("f", "root");
    TempDir volume;
    volume.file("v", "volume");
    volume.file("single", "one");
    Program program(R"({"id": "t1", "mounts": [
        {"source": ")" +
                    dir.path() + R"(", "destination": "/", "read_only": true},
        {"source": ")" +
                    volume.path() + R"(", "destination": "/data", "options": ["rw", "noexec"]},
        {"source": ")" +
                    (volume / "single") + R"(", "destination": "/etc/hosts"}]})");
    if (program.skipped()) {
        return;
    }
    const auto begin = std::chrono::steady_clock::now();
    auto connected = program.connect();
    REQUIRE_MESSAGE(connected.ok(), program.message);
    const auto took = std::chrono::steady_clock::now() - begin;
    MESSAGE("ready after " << std::chrono::duration_cast<std::chrono::microseconds>(took).count()
                           << " us");
    auto client = std::move(connected).value();
    REQUIRE(client->mounts().size() == 3);
    CHECK(client->mounts()[1].destination == "/data");
    CHECK((client->mounts()[1].flags & kMountNoExec) != 0);
    const NodeId root = client->mounts()[0].root.id;
    const NodeId data = client->mounts()[1].root.id;
    const NodeId single = client->mounts()[2].root.id;

    CHECK(MUST(client->walk(root, "f", O_RDONLY)).file.valid());
    CHECK_ERRNO(EROFS, client->mkdir(root, "d", {0755, 0, 0}));
    auto made = MUST(client->create(data, "new", O_RDWR, {0640, 1000, 1001}));
    CHECK(::write(made.file.get(), "x", 1) == 1);
    CHECK(volume.read("new") == "x");
    struct stat s;
    REQUIRE(::stat((volume / "new").c_str(), &s) == 0);
    CHECK(s.st_uid == 1000);
    CHECK(S_ISREG(client->mounts()[2].root.attributes.mode));
    const auto file = MUST(client->open(single, O_RDWR));
    CHECK(::pwrite(file.file.get(), "ONE", 3, 0) == 3);
    CHECK(volume.read("single") == "ONE");
    CHECK_ERRNO(ENOTDIR, client->walk(single, "x"));

    // Every kind of request passes the filter.
    MUST(client->mkdir(data, "d", {02755, 5, 6}));
    MUST(client->symlink(data, "l", "new", {0777, 5, 6}));
    MUST(client->mknod(data, "p", {S_IFIFO | 0600, 1, 1}, 0, 0));
    MUST(client->link(made.node.id, data, "hard"));
    CHECK(client->rename(data, "hard", data, "harder").ok());
    CHECK(client->unlink(data, "harder").ok());
    CHECK(client->rmdir(data, "d").ok());
    SetAttributesRequest set;
    set.node = made.node.id;
    set.mask = kSetMode | kSetUid | kSetGid | kSetSize | kSetAccessTimeNow | kSetModifyTime;
    set.mode = 06755;
    CHECK(MUST(client->set_attributes(set)).mode == (S_IFREG | 06755));
    CHECK(client->fsync(made.node.id, false).ok());
    CHECK(client->fsync(made.node.id, true).ok());
    MUST(client->statfs(data));
    CHECK(MUST(client->read_dir(data, 0, true)).entries.size() == 5);
    const auto link = MUST(client->walk(data, "l"));
    CHECK(link.target == "new");
    CHECK(MUST(client->read_link(link.nodes[0].id)) == "new");
    const auto xattr = client->set_xattr(made.node.id, "user.t", "v", 0);
    CHECK((xattr.ok() || xattr.error() == EOPNOTSUPP));
    (void)client->get_xattr(made.node.id, "user.t").ok();
    (void)client->list_xattr(made.node.id).ok();
    (void)client->remove_xattr(made.node.id, "user.t").ok();
    CHECK_ERRNO(EPERM, client->connect_socket(made.node.id, SOCK_STREAM));
    // Capabilities that it must not have.
    CHECK_ERRNO(EPERM, client->set_xattr(made.node.id, "trusted.t", "v", 0));

    client.reset();
    CHECK(program.exit_code() == 0);
}

TEST_CASE("program: capabilities, seccomp, namespace and descriptors are what they should be") {
    TempDir dir;
    dir.file("f");
    Program program(one_mount(dir.path()));
    if (program.skipped()) {
        return;
    }
    auto connected = program.connect();
    REQUIRE_MESSAGE(connected.ok(), program.message);
    const pid_t pid = program.server();
    // CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, FOWNER 3, FSETID 4.
    CHECK(status_line(pid, "CapEff") == "000000000000001f");
    CHECK(status_line(pid, "CapPrm") == "000000000000001f");
    CHECK(status_line(pid, "CapBnd") == "000000000000001f");
    CHECK(status_line(pid, "CapInh") == "0000000000000000");
    CHECK(status_line(pid, "CapAmb") == "0000000000000000");
    CHECK(status_line(pid, "NoNewPrivs") == "1");
    CHECK(status_line(pid, "Seccomp") == "2");
    CHECK(status_line(pid, "Threads") == "1");
    // The three standard ones, the channel, epoll, the root and the one mount's.
    CHECK(count_descriptors(pid) <= 8);
    // All that its root has is the mount.
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_of(pid))) {
        names.push_back(entry.path().filename());
    }
    CHECK(names == std::vector<std::string>{"0"});
    std::ifstream mounts("/proc/" + std::to_string(pid) + "/mountinfo");
    int lines = 0;
    for (std::string line; std::getline(mounts, line);) {
        lines++;
        CHECK_MESSAGE(line.find("nosuid,nodev") != std::string::npos, line);
        CHECK_MESSAGE(line.find("shared:") == std::string::npos, line);
    }
    CHECK(lines == 2);
    std::ifstream self("/proc/self/mountinfo");
    for (std::string line; std::getline(self, line);) {
        CHECK(line.find("moat-gofer") == std::string::npos);
    }
}

TEST_CASE("filter: what is not on the list kills, what is on it with other arguments does too") {
#ifdef __SANITIZE_ADDRESS__
    MESSAGE("skipped: AddressSanitizer makes calls of its own, and the filter kills for them");
    return;
#endif
    const auto ends_with = [](const std::string& what, int status, auto&& act) {
        CAPTURE(what);
        const pid_t pid = ::fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            // no_new_privs stands in for CAP_SYS_ADMIN.
            if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !install_filter().ok()) {
                ::_exit(3);
            }
            act();
            ::_exit(0);
        }
        const int got = wait_for(pid);
        CHECK((WIFSIGNALED(got) ? WTERMSIG(got) : 0) == status);
    };
    ends_with("nothing", 0, [] {});
    ends_with("socketpair of unix", 0, [] {
        int ends[2];
        (void)::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    });
    ends_with("anonymous memory", 0, [] {
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    });
    ends_with("open", SIGSYS, [] { (void)::open("/etc/passwd", O_RDONLY); });
    ends_with("fork", SIGSYS, [] { (void)::fork(); });
    ends_with("exec", SIGSYS, [] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); });
    ends_with("internet", SIGSYS, [] { (void)::socket(AF_INET, SOCK_STREAM, 0); });
    ends_with("chroot", SIGSYS, [] { (void)::chroot("/"); });
    ends_with("file handles", SIGSYS, [] { (void)::open_by_handle_at(3, nullptr, O_RDONLY); });
    ends_with("mount", SIGSYS, [] { (void)::umount2("/x", 0); });
    ends_with("code", SIGSYS, [] {
        ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    });
    ends_with("mapped file", SIGSYS,
              [] { ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, STDERR_FILENO, 0); });
    ends_with("ptrace", SIGSYS, [] { (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
    ends_with("signal", SIGSYS, [] { (void)::kill(1, 0); });
}

TEST_CASE("program: a read-only mount is read-only for the host as well, submounts included") {
    TempDir dir;
    dir.directory("sub");
    Program program(one_mount(dir.path(), R"(, "options": ["ro"])"));
    if (program.skipped()) {
        return;
    }
    auto client = MUST(program.connect());
    const std::string inside = root_of(program.server()) + "/0/sub/x";
    CHECK(::open(inside.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644) == -1);
    CHECK(errno == EROFS);
}

TEST_CASE("program: what goes wrong before it is ready is told in words") {
    const auto fails_with = [](const std::string& plan, int error, const std::string& words) {
        Program program(plan);
        if (program.skipped()) {
            return;
        }
        const auto connected = program.connect();
        CHECK_FALSE(connected.ok());
        CHECK(connected.error().value() == error);
        CHECK_MESSAGE(program.message.find(words) != std::string::npos, program.message);
        CHECK(program.exit_code() == 1);
    };
    fails_with(one_mount("/does/not/exist"), ENOENT,
               "gofer t1: bind /does/not/exist: No such file or directory");
    fails_with("{", EINVAL, "not a JSON object");
    fails_with(R"({"id": "x", "mounts": []})", EINVAL, "mounts is missing or empty");
    fails_with(one_mount("/", R"(, "options": ["sudo"])"), EINVAL, "unknown option");
}

TEST_CASE("program: it dies with a message lost, not with a hang, when it is killed") {
    TempDir dir;
    Program program(one_mount(dir.path()));
    if (program.skipped()) {
        return;
    }
    auto client = MUST(program.connect());
    REQUIRE(::kill(program.server(), SIGKILL) == 0);
    CHECK(program.exit_code() == 100 + SIGKILL);
    CHECK_ERRNO(EIO, client->stat(client->mounts()[0].root.id));
    CHECK_ERRNO(EIO, client->walk(client->mounts()[0].root.id, "x"));
}

TEST_CASE("plan: what it must have, may have and must not have") {
    CHECK(parse_plan(R"({"id": "a", "mounts": [{"source": "/x", "destination": "/"}]})").ok());
    for (const char* bad :
         {"", "[]", "null", "{}", R"({"id": 1, "mounts": []})",
          R"({"id": "a", "mounts": [{"source": "x", "destination": "/"}]})",
          R"({"id": "a", "mounts": [{"source": "/x"}]})",
          R"({"id": "a", "mounts": [{"source": "/x", "destination": "y"}]})",
          R"({"id": "a", "mounts": [{"source": "/x", "destination": "/", "readonly": true}]})",
          R"({"id": "a", "mounts": [{"source": "/x", "destination": "/", "read_only": 1}]})",
          R"({"id": "a", "mounts": [{"source": "/x", "destination": "/", "options": "ro"}]})",
          R"({"id": "a", "mounts": [{"source": "/x", "destination": "/", "options": [1]}]})",
          R"({"id": "a", "mounts": [{"source": "/x\u0000y", "destination": "/"}]})",
          R"({"id": "a", "extra": 1, "mounts": [{"source": "/x", "destination": "/"}]})"}) {
        CAPTURE(bad);
        const auto plan = parse_plan(bad);
        CHECK_FALSE(plan.ok());
        CHECK(plan.error().message.starts_with("plan: "));
    }
}
