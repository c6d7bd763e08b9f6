// set*id(2), setgroups(2), capget(2), capset(2), permission checks, umask(2), no_new_privs.

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

constexpr uid_t kUser = 12345;
constexpr gid_t kGroup = 23456;

void become_user(const std::vector<gid_t>& groups = {}) {
    CHILD_THAT(::setgroups(groups.size(), groups.data()), succeeds());
    CHILD_THAT(::setgid(kGroup), succeeds());
    CHILD_THAT(::setuid(kUser), succeeds());
}

struct Capabilities {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    int get() { return static_cast<int>(::syscall(SYS_capget, &header, data)); }
    int set() { return static_cast<int>(::syscall(SYS_capset, &header, data)); }
    bool effective(int capability) const {
        return data[capability / 32].effective >> (capability % 32) & 1;
    }
    bool permitted(int capability) const {
        return data[capability / 32].permitted >> (capability % 32) & 1;
    }
};

TEST_CASE("setuid: root changes all three ids and cannot come back") {
    in_child([] {
        CHILD_THAT(::setuid(kUser), succeeds());
        uid_t r, e, s;
        CHILD_THAT(::getresuid(&r, &e, &s), succeeds());
        CHILD_CHECK(r == kUser && e == kUser && s == kUser);
        CHILD_THAT(::setuid(0), fails_with(EPERM));
        CHILD_THAT(::seteuid(0), fails_with(EPERM));
    });
}

TEST_CASE("seteuid: drops for a while, the saved id brings it back") {
    in_child([] {
        CHILD_THAT(::seteuid(kUser), succeeds());
        CHILD_CHECK(::geteuid() == kUser && ::getuid() == 0);
        CHILD_THAT(::seteuid(0), succeeds());
        CHILD_CHECK(::geteuid() == 0);
    });
}

TEST_CASE("setresuid: minus one keeps, others only among one's own for users") {
    in_child([] {
        CHILD_THAT(::setresuid(1, 2, 3), succeeds());
        CHILD_THAT(::setresuid(static_cast<uid_t>(-1), 3, static_cast<uid_t>(-1)), succeeds());
        CHILD_CHECK(::geteuid() == 3 && ::getuid() == 1);
        CHILD_THAT(::setresuid(4, static_cast<uid_t>(-1), static_cast<uid_t>(-1)),
                   fails_with(EPERM));
        CHILD_THAT(::setreuid(3, 1), succeeds());
        CHILD_CHECK(::getuid() == 3 && ::geteuid() == 1);
    });
}

TEST_CASE("setgid and setresgid: like those of users") {
    in_child([] {
        CHILD_THAT(::setresgid(5, 6, 7), succeeds());
        gid_t r, e, s;
        CHILD_THAT(::getresgid(&r, &e, &s), succeeds());
        CHILD_CHECK(r == 5 && e == 6 && s == 7);
        CHILD_THAT(::setuid(kUser), succeeds());
        CHILD_THAT(::setgid(7), succeeds());
        CHILD_THAT(::setgid(99), fails_with(EPERM));
        CHILD_THAT(::setregid(static_cast<gid_t>(-1), 5), succeeds());
    });
}

TEST_CASE("ids: minus one is no id, bad pointers fail") {
    in_child([] {
        CHILD_THAT(::syscall(SYS_setuid, -1), fails_with(EINVAL));
        CHILD_THAT(::syscall(SYS_setgid, -1), fails_with(EINVAL));
        uid_t a, b;
        CHILD_THAT(::syscall(SYS_getresuid, &a, &b, bad<uid_t>()), fails_with(EFAULT));
    });
}

TEST_CASE("setgroups: root sets, users may not, getgroups tells") {
    in_child([] {
        const gid_t groups[] = {10, 20, 30};
        CHILD_THAT(::setgroups(3, groups), succeeds());
        FencedBuffer buffer(3 * sizeof(gid_t));
        CHILD_THAT(::getgroups(0, nullptr), succeeds_with(3));
        CHILD_THAT(::getgroups(2, reinterpret_cast<gid_t*>(buffer.data())), fails_with(EINVAL));
        CHILD_THAT(::getgroups(3, reinterpret_cast<gid_t*>(buffer.data())), succeeds_with(3));
        CHILD_CHECK(reinterpret_cast<gid_t*>(buffer.data())[2] == 30);
        CHILD_CHECK(buffer.intact());
        CHILD_THAT(::syscall(SYS_setgroups, 65537, groups), fails_with(EINVAL));
        CHILD_THAT(::syscall(SYS_setgroups, 3, bad<gid_t>()), fails_with(EFAULT));
        CHILD_THAT(::setuid(kUser), succeeds());
        CHILD_THAT(::setgroups(3, groups), fails_with(EPERM));
    });
}

TEST_CASE("setfsuid: files are made in its name") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::chmod(dir.path().c_str(), 0777), succeeds());
        ::setfsuid(kUser);
        CHILD_CHECK(::setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(kUser));
        const FileDescriptor fd(::open((dir / "f").c_str(), O_CREAT | O_RDWR, 0600));
        struct stat st;
        CHILD_THAT(::fstat(fd.get(), &st), succeeds());
        CHILD_CHECK(st.st_uid == kUser);
        CHILD_CHECK(::geteuid() == 0);
    });
}

TEST_CASE("threads: libc's setuid changes all threads, the bare call only one") {
    in_child([] {
        Gate go, leave;
        std::atomic<uid_t> other{99};
        Thread thread([&] {
            go.wait();
            other = static_cast<uid_t>(::syscall(SYS_geteuid));
            leave.wait();
        });
        thread.tid();
        CHILD_THAT(::syscall(SYS_setresuid, -1, kUser, -1), succeeds());
        go.open();
        CHILD_CHECK(eventually([&] { return other != 99; }));
        CHILD_CHECK(other == 0);
        leave.open();
    });
}

TEST_CASE("permissions: owner, group and others, in this order") {
    TempDir dir;
    const auto open_as_user = [&](const std::string& path, int flags,
                                  const std::vector<gid_t>& groups) {
        return run_in_child([&] {
            become_user(groups);
            const int fd = ::open(path.c_str(), flags);
            ::_exit(fd >= 0 ? 0 : errno);
        });
    };
    const std::string path = dir.file("f", "x");
    REQUIRE_THAT(::chown(path.c_str(), 0, 777), succeeds());
    REQUIRE_THAT(::chmod(path.c_str(), 0640), succeeds());
    CHECK(open_as_user(path, O_RDONLY, {}) == exited(EACCES));
    CHECK(open_as_user(path, O_RDONLY, {777}) == exited(0));
    CHECK(open_as_user(path, O_RDWR, {777}) == exited(EACCES));
    REQUIRE_THAT(::chmod(path.c_str(), 0606), succeeds());
    CHECK(open_as_user(path, O_RDWR, {}) == exited(0));
    CHECK(open_as_user(path, O_RDONLY, {777}) == exited(EACCES));  // the group's bits decide
    REQUIRE_THAT(::chown(path.c_str(), kUser, 777), succeeds());
    REQUIRE_THAT(::chmod(path.c_str(), 0066), succeeds());
    CHECK(open_as_user(path, O_RDONLY, {777}) == exited(EACCES));  // the owner's bits decide
}

TEST_CASE("permissions: directories: search to pass, write to create and delete, read to list") {
    TempDir dir;
    dir.file("f", "x", 0666);
    const auto as_user = [&](mode_t mode, const std::function<void()>& body) {
        REQUIRE_THAT(::chmod(dir.path().c_str(), mode), succeeds());
        in_child([&] {
            become_user();
            body();
        });
    };
    as_user(0701, [&] {
        CHILD_THAT(::open((dir / "f").c_str(), O_RDONLY), succeeds());
        CHILD_THAT(::open(dir.path().c_str(), O_RDONLY), fails_with(EACCES));
        CHILD_THAT(::open((dir / "g").c_str(), O_CREAT | O_RDWR, 0600), fails_with(EACCES));
        CHILD_THAT(::unlink((dir / "f").c_str()), fails_with(EACCES));
    });
    as_user(0704, [&] {
        CHILD_THAT(::open(dir.path().c_str(), O_RDONLY), succeeds());
        CHILD_THAT(::open((dir / "f").c_str(), O_RDONLY), fails_with(EACCES));
        struct stat st;
        CHILD_THAT(::stat((dir / "f").c_str(), &st), fails_with(EACCES));
    });
    as_user(0703, [&] {
        CHILD_THAT(::unlink((dir / "f").c_str()), succeeds());
        CHILD_THAT(::mkdir((dir / "d").c_str(), 0700), succeeds());
    });
}

TEST_CASE("permissions: the sticky bit protects other people's files") {
    TempDir dir;
    dir.file("roots", "x", 0666);
    REQUIRE_THAT(::chmod(dir.path().c_str(), 01777), succeeds());
    in_child([&] {
        become_user();
        CHILD_THAT(::unlink((dir / "roots").c_str()), fails_with(EPERM));
        CHILD_THAT(::rename((dir / "roots").c_str(), (dir / "mine").c_str()), fails_with(EPERM));
        FileDescriptor(::open((dir / "own").c_str(), O_CREAT | O_RDWR, 0600)).reset();
        CHILD_THAT(::unlink((dir / "own").c_str()), succeeds());
    });
}

TEST_CASE("permissions: only owners change modes, only root changes owners") {
    TempDir dir;
    const std::string path = dir.file("f", "x", 0666);
    in_child([&] {
        become_user({888});
        CHILD_THAT(::chmod(path.c_str(), 0777), fails_with(EPERM));
        CHILD_THAT(::chown(path.c_str(), kUser, kGroup), fails_with(EPERM));
        CHILD_THAT(::utimensat(AT_FDCWD, path.c_str(), nullptr, 0), succeeds());  // it is writable
        const timespec times[2] = {{1, 0}, {1, 0}};
        CHILD_THAT(::utimensat(AT_FDCWD, path.c_str(), times, 0), fails_with(EPERM));
    });
    REQUIRE_THAT(::chown(path.c_str(), kUser, kGroup), succeeds());
    in_child([&] {
        become_user({888});
        CHILD_THAT(::chmod(path.c_str(), 0600), succeeds());
        CHILD_THAT(::chown(path.c_str(), static_cast<uid_t>(-1), 888), succeeds());
        CHILD_THAT(::chown(path.c_str(), static_cast<uid_t>(-1), 999), fails_with(EPERM));
        CHILD_THAT(::chown(path.c_str(), 1, static_cast<gid_t>(-1)), fails_with(EPERM));
    });
}

TEST_CASE("permissions: a set-group-id directory hands its group down") {
    TempDir dir;
    REQUIRE_THAT(::chown(dir.path().c_str(), 0, 777), succeeds());
    REQUIRE_THAT(::chmod(dir.path().c_str(), 02777), succeeds());
    dir.file("f");
    REQUIRE_THAT(::mkdir((dir / "d").c_str(), 0755), succeeds());
    struct stat st;
    REQUIRE_THAT(::stat((dir / "f").c_str(), &st), succeeds());
    CHECK(st.st_gid == 777);
    REQUIRE_THAT(::stat((dir / "d").c_str(), &st), succeeds());
    CHECK(st.st_gid == 777);
    CHECK((st.st_mode & S_ISGID) != 0);
}

TEST_CASE("permissions: writing by a user clears set-user-id") {
    TempDir dir;
    const std::string path = dir.file("f", "x");
    REQUIRE_THAT(::chmod(path.c_str(), 06777), succeeds());
    in_child([&] {
        become_user();
        const FileDescriptor fd(::open(path.c_str(), O_WRONLY));
        CHILD_THAT(::write(fd.get(), "y", 1), succeeds_with(1));
    });
    struct stat st;
    REQUIRE_THAT(::stat(path.c_str(), &st), succeeds());
    CHECK((st.st_mode & 06000) == 0);
}

TEST_CASE("access: asks for the real user, open for the effective one") {
    TempDir dir;
    const std::string path = dir.file("f", "x", 0600);
    in_child([&] {
        CHILD_THAT(::setresuid(kUser, 0, 0), succeeds());
        CHILD_THAT(::access(path.c_str(), R_OK), fails_with(EACCES));
        CHILD_THAT(::open(path.c_str(), O_RDONLY), succeeds());
    });
}

GUEST_HELPER(print_ids) {
    write_all(1, std::to_string(::getuid()) + " " + std::to_string(::geteuid()) + " " +
                     std::to_string(::getegid()));
    return 0;
}

TEST_CASE("execve: a set-user-id program gets its owner, unless no_new_privs") {
    TempDir dir;
    const std::string program = dir.file("suid", read_file(self_exe()), 0755);
    REQUIRE_THAT(::chown(program.c_str(), 4321, 5432), succeeds());
    REQUIRE_THAT(::chmod(program.c_str(), 06755), succeeds());
    const auto ids = [&](bool no_new_privileges) {
        Pipe pipe;
        Child child([&] {
            ::dup2(pipe.write_end.get(), 1);
            become_user();
            if (no_new_privileges) {
                CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds());
            }
            exec_path(program, {"x", "--helper=print_ids"}, {});
        });
        pipe.write_end.reset();
        const std::string text = read_all(pipe.read_end.get());
        CHECK(child.wait() == exited(0));
        return text;
    };
    const std::string with = ids(false);
    CHECK(ids(true) == "12345 12345 23456");
    SKIP_UNLESS(with != "12345 12345 23456", "set-user-id does not work here (nosuid?)");
    CHECK(with == "12345 4321 5432");
}

TEST_CASE(
    "capabilities: root has them, a change of user loses them, PR_SET_KEEPCAPS keeps the "
    "permitted") {
    in_child([] {
        Capabilities now;
        CHILD_THAT(now.get(), succeeds());
        CHILD_CHECK(now.effective(CAP_SETUID));
        Child loses([] {
            CHILD_THAT(::setuid(kUser), succeeds());
            Capabilities after;
            CHILD_THAT(after.get(), succeeds());
            CHILD_CHECK(after.data[0].permitted == 0 && after.data[0].effective == 0);
        });
        CHILD_CHECK(loses.wait() == exited(0));
        Child keeps([] {
            CHILD_THAT(::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), succeeds());
            CHILD_THAT(::setuid(kUser), succeeds());
            Capabilities after;
            CHILD_THAT(after.get(), succeeds());
            CHILD_CHECK(after.permitted(CAP_SETUID) && !after.effective(CAP_SETUID));
            after.data[0].effective = 1U << CAP_SETUID;
            CHILD_THAT(after.set(), succeeds());
            CHILD_THAT(::setuid(0), succeeds());
        });
        CHILD_CHECK(keeps.wait() == exited(0));
    });
}

TEST_CASE("capabilities: what is dropped is enforced and cannot be taken back") {
    TempDir dir;
    const std::string path = dir.file("f", "secret", 0000);
    REQUIRE_THAT(::chown(path.c_str(), kUser, kUser), succeeds());
    in_child([&] {
        CHILD_THAT(::open(path.c_str(), O_RDONLY), succeeds());
        Capabilities caps;
        CHILD_THAT(caps.get(), succeeds());
        const uint32_t drop =
            1U << CAP_DAC_OVERRIDE | 1U << CAP_DAC_READ_SEARCH | 1U << CAP_CHOWN | 1U << CAP_KILL;
        caps.data[0].effective &= ~drop;
        caps.data[0].permitted &= ~drop;
        CHILD_THAT(caps.set(), succeeds());
        CHILD_THAT(::open(path.c_str(), O_RDONLY), fails_with(EACCES));
        CHILD_THAT(::chown(path.c_str(), 1, 1), fails_with(EPERM));
        caps.data[0].permitted |= drop;
        CHILD_THAT(caps.set(), fails_with(EPERM));
    });
}

TEST_CASE(
    "capabilities: the effective must be permitted, unknown versions are answered with the known "
    "one") {
    in_child([] {
        Capabilities caps;
        CHILD_THAT(caps.get(), succeeds());
        caps.data[0].permitted = 0;
        CHILD_THAT(caps.set(), fails_with(EPERM));
        caps.header.version = 0x12345;
        CHILD_THAT(caps.get(), fails_with(EINVAL));
        CHILD_CHECK(caps.header.version == _LINUX_CAPABILITY_VERSION_3);
        CHILD_THAT(::syscall(SYS_capget, bad<void>(), nullptr), fails_with(EFAULT));
        caps.header.pid = 0x7ffffff0;
        CHILD_THAT(caps.get(), fails_with(ESRCH));
    });
}

TEST_CASE("capabilities: the bounding set shrinks for good, and limits what an exec gives") {
    in_child([] {
        CHILD_THAT(::prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0), succeeds());
        CHILD_THAT(::prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0), succeeds());
        CHILD_THAT(::prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0), succeeds_with(0));
        CHILD_THAT(::prctl(PR_CAPBSET_READ, 99, 0, 0, 0), fails_with(EINVAL));
        const std::string status = read_file("/proc/self/status");
        CHILD_CHECK(status.find("CapBnd:") != std::string::npos);
    });
}

TEST_CASE("no_new_privs: is set for good and inherited") {
    in_child([] {
        CHILD_THAT(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), succeeds());
        CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds());
        CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), fails_with(EINVAL));
        Child child([] { CHILD_THAT(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), succeeds_with(1)); });
        CHILD_CHECK(child.wait() == exited(0));
    });
}

TEST_CASE("umask: returns the old one and keeps only permission bits") {
    in_child([] {
        ::umask(022);
        CHILD_CHECK(::umask(07777) == 022);
        CHILD_CHECK(::umask(0) == 0777);
    });
}

}  // namespace
