// /proc as libc, ps and shells read it.

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        lines.push_back(line);
    }
    return lines;
}

/// The value behind "Key:" in a status-like file.
std::string field(const std::string& text, const std::string& key) {
    for (const std::string& line : lines_of(text)) {
        if (line.starts_with(key + ":")) {
            const size_t start = line.find_first_not_of(" \t", key.size() + 1);
            return start == std::string::npos ? "" : line.substr(start);
        }
    }
    return "(no " + key + ")";
}

std::set<std::string> names(const std::string& path) {
    std::set<std::string> all;
    if (DIR* dir = ::opendir(path.c_str())) {
        while (const dirent* entry = ::readdir(dir)) {
            all.insert(entry->d_name);
        }
        ::closedir(dir);
    }
    return all;
}

std::string link_target(const std::string& path) {
    char target[4096];
    const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
    return n < 0 ? "(" + errno_name(errno) + ")" : std::string(target, static_cast<size_t>(n));
}

struct Area {
    unsigned long start, end, offset;
    char permissions[5];
    std::string name;
};

std::vector<Area> areas() {
    std::vector<Area> all;
    for (const std::string& line : lines_of(read_file("/proc/self/maps"))) {
        Area area{};
        int name_at = 0;
        unsigned major, minor;
        unsigned long inode;
        if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &area.start, &area.end,
                        area.permissions, &area.offset, &major, &minor, &inode, &name_at) == 7) {
            area.name = line.substr(static_cast<size_t>(name_at));
            all.push_back(area);
        }
    }
    return all;
}

const Area* area_at(const std::vector<Area>& all, const void* address) {
    const auto a = reinterpret_cast<unsigned long>(address);
    for (const Area& area : all) {
        if (a >= area.start && a < area.end) {
            return &area;
        }
    }
    return nullptr;
}

TEST_CASE("/proc/self: is a link to one's own pid") {
    CHECK(link_target("/proc/self") == std::to_string(::getpid()));
    in_child([] { CHILD_CHECK(link_target("/proc/self") == std::to_string(::getpid())); });
    CHECK(link_target("/proc/thread-self") ==
          std::to_string(::getpid()) + "/task/" + std::to_string(gettid_now()));
}

TEST_CASE("/proc/self/maps: sorted, without overlap, with the program, heap, stack and vdso") {
    const auto all = areas();
    REQUIRE(all.size() >= 4);
    for (size_t i = 1; i < all.size(); ++i) {
        CHECK(all[i].start >= all[i - 1].end);
    }
    int local = 0;
    const Area* stack = area_at(all, &local);
    REQUIRE(stack != nullptr);
    CHECK(stack->name == "[stack]");
    CHECK(std::string(stack->permissions) == "rw-p");
    const Area* text = area_at(all, reinterpret_cast<void*>(&link_target));
    REQUIRE(text != nullptr);
    CHECK(std::string(text->permissions) == "r-xp");
    CHECK(text->name == self_exe());
    bool heap = false, vdso = false;
    for (const Area& area : all) {
        heap = heap || area.name == "[heap]";
        vdso = vdso || area.name == "[vdso]";
    }
    CHECK(heap);
    CHECK(vdso);
}

TEST_CASE("/proc/self/maps: shows protections, offsets and names of one's own mappings") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("mapped", std::string(8192, 'm')), O_RDWR);
    Mapping shared(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 4096);
    Mapping none(3 * 4096, PROT_NONE);
    REQUIRE_THAT(::mprotect(none.data() + 4096, 4096, PROT_READ), succeeds());
    const auto all = areas();
    const Area* file = area_at(all, shared.data());
    REQUIRE(file != nullptr);
    CHECK(std::string(file->permissions) == "rw-s");
    CHECK(file->offset == 4096);
    CHECK(file->name == dir / "mapped");
    const Area* middle = area_at(all, none.data() + 4096);
    REQUIRE(middle != nullptr);
    CHECK(std::string(middle->permissions) == "r--p");
    CHECK(middle->end - middle->start == 4096);
}

TEST_CASE("/proc/self/status: name, ids, state, threads, masks") {
    in_child([] {
        const std::string status = read_file("/proc/self/status");
        CHILD_CHECK(field(status, "Name").starts_with("procfs"));
        CHILD_CHECK(field(status, "State").starts_with("R"));
        CHILD_CHECK(field(status, "Pid") == std::to_string(::getpid()));
        CHILD_CHECK(field(status, "Tgid") == std::to_string(::getpid()));
        CHILD_CHECK(field(status, "PPid") == std::to_string(::getppid()));
        CHILD_CHECK(field(status, "Threads") == "1");
        CHILD_CHECK(field(status, "Uid") == "0\t0\t0\t0");
        CHILD_CHECK(field(status, "VmRSS").ends_with(" kB"));
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGHUP);
        ::sigprocmask(SIG_SETMASK, &set, nullptr);
        ::signal(SIGINT, SIG_IGN);
        ::signal(SIGTERM, [](int) {});
        ::raise(SIGHUP);
        const std::string now = read_file("/proc/self/status");
        CHILD_CHECK(field(now, "SigBlk") == "0000000000000001");
        CHILD_CHECK(std::stoul(field(now, "SigIgn"), nullptr, 16) & 1UL << (SIGINT - 1));
        CHILD_CHECK(std::stoul(field(now, "SigCgt"), nullptr, 16) & 1UL << (SIGTERM - 1));
    });
}

TEST_CASE("/proc/self/stat: pid, name in brackets, state, parent, group and session") {
    const std::string stat = read_file("/proc/self/stat");
    const size_t open = stat.find('('), close = stat.rfind(')');
    REQUIRE(close != std::string::npos);
    CHECK(std::stoi(stat) == ::getpid());
    CHECK(stat.substr(open + 1, close - open - 1) == "procfs");
    std::istringstream in(stat.substr(close + 2));
    char state;
    int parent, group, session;
    in >> state >> parent >> group >> session;
    CHECK(state == 'R');
    CHECK(parent == ::getppid());
    CHECK(group == ::getpgrp());
    CHECK(session == ::getsid(0));
    std::vector<std::string> rest;
    for (std::string word; in >> word;) {
        rest.push_back(word);
    }
    CHECK(rest.size() >= 40);
}

TEST_CASE("/proc/<pid>/stat: shows sleeping, stopped and dead children") {
    Child child([] { ::pause(); });
    wait_until_blocked(child.pid());
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    CHECK(thread_state(child.pid(), child.pid()) == 'T');
    child.kill(SIGKILL);
    CHECK(eventually([&] { return thread_state(child.pid(), child.pid()) == 'Z'; }));
    CHECK(field(read_file("/proc/" + std::to_string(child.pid()) + "/status"), "State")
              .starts_with("Z"));
    CHECK(child.wait() == killed(SIGKILL));
    CHECK_THAT(::access(("/proc/" + std::to_string(child.pid())).c_str(), F_OK),
               fails_with(ENOENT));
}

TEST_CASE("/proc/self/cmdline, comm and environ: as they were given") {
    const std::string cmdline = read_file("/proc/self/cmdline");
    CHECK(cmdline.ends_with('\0'));
    CHECK(cmdline.find("procfs") != std::string::npos);
    CHECK(read_file("/proc/self/comm") == "procfs\n");
    in_child([] {
        const FileDescriptor comm = open_file("/proc/self/comm", O_WRONLY);
        CHILD_CHECK(write_all(comm.get(), "a new name that is long"));
        CHILD_CHECK(read_file("/proc/self/comm") == "a new name that\n");
    });
}

TEST_CASE("/proc/self/exe, cwd and root: links that can be followed") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::chdir(dir.path().c_str()), succeeds());
        CHILD_CHECK(link_target("/proc/self/cwd") == dir.path());
        dir.file("f", "through cwd");
        CHILD_CHECK(read_file("/proc/self/cwd/f") == "through cwd");
    });
    CHECK(link_target("/proc/self/root") == "/");
    CHECK(read_file("/proc/self/exe")
              .starts_with("\x7f"
                           "ELF"));
}

TEST_CASE("/proc/self/fd: one link a descriptor, opening it opens the file again") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDONLY);
    Pipe pipe;
    REQUIRE_THAT(::lseek(fd.get(), 5, SEEK_SET), succeeds());
    const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
    CHECK(link_target(link) == dir / "f");
    CHECK(
        link_target("/proc/self/fd/" + std::to_string(pipe.read_end.get())).starts_with("pipe:["));
    CHECK(read_file(link) == "0123456789");
    const auto all = names("/proc/self/fd");
    CHECK(all.count(std::to_string(fd.get())) == 1);
    CHECK(all.count("999") == 0);
    REQUIRE_THAT(::unlink((dir / "f").c_str()), succeeds());
    CHECK(link_target(link) == (dir / "f") + " (deleted)");
    struct stat st;
    REQUIRE_THAT(::lstat(link.c_str(), &st), succeeds());
    CHECK(S_ISLNK(st.st_mode));
    CHECK((st.st_mode & 0777) == 0500);
}

TEST_CASE("/proc/self/fdinfo: position and flags") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDWR | O_APPEND);
    REQUIRE_THAT(::lseek(fd.get(), 7, SEEK_SET), succeeds());
    const std::string info = read_file("/proc/self/fdinfo/" + std::to_string(fd.get()));
    CHECK(field(info, "pos") == "7");
    CHECK((std::stoul(field(info, "flags"), nullptr, 8) & O_APPEND) != 0);
}

TEST_CASE("/proc/self/task: one directory a thread") {
    Gate leave;
    Thread thread([&] { leave.wait(); });
    const auto all = names("/proc/self/task");
    CHECK(all.count(std::to_string(thread.tid())) == 1);
    CHECK(all.count(std::to_string(::getpid())) == 1);
    leave.open();
}

TEST_CASE("/proc/self/mounts and mountinfo: the root and /proc are there") {
    const std::string mounts = read_file("/proc/self/mounts");
    bool root = false, proc = false;
    for (const std::string& line : lines_of(mounts)) {
        std::istringstream in(line);
        std::string source, where, type;
        in >> source >> where >> type;
        root = root || where == "/";
        proc = proc || (where == "/proc" && type == "proc");
    }
    CHECK(root);
    CHECK(proc);
    CHECK(read_file("/proc/self/mountinfo").find(" / /proc ") != std::string::npos);
    CHECK(link_target("/proc/mounts") == "self/mounts");
}

TEST_CASE("/proc/self/cgroup: lines of id, controllers and path") {
    const auto lines = lines_of(read_file("/proc/self/cgroup"));
    REQUIRE(!lines.empty());
    for (const std::string& line : lines) {
        CHECK(line.find(":/") != std::string::npos);
    }
}

TEST_CASE("/proc/self/limits, statm, io-like files: read with sensible numbers") {
    CHECK(read_file("/proc/self/limits").find("Max open files") != std::string::npos);
    std::istringstream in(read_file("/proc/self/statm"));
    long size = 0, resident = 0;
    in >> size >> resident;
    CHECK(size > 0);
    CHECK(resident > 0);
    CHECK(resident <= size);
    CHECK(!read_file("/proc/self/oom_score_adj").empty());
}

TEST_CASE("/proc/meminfo: agrees with sysinfo") {
    const std::string text = read_file("/proc/meminfo");
    struct sysinfo info;
    REQUIRE_THAT(::sysinfo(&info), succeeds());
    const unsigned long total = std::stoul(field(text, "MemTotal"));
    CHECK(total * 1024 == info.totalram * info.mem_unit);
    CHECK(std::stoul(field(text, "MemFree")) <= total);
    CHECK(std::stoul(field(text, "MemAvailable")) <= total);
}

TEST_CASE("/proc/uptime, loadavg, stat, version, cpuinfo, filesystems: have their forms") {
    double up = 0, idle = -1;
    CHECK(std::sscanf(read_file("/proc/uptime").c_str(), "%lf %lf", &up, &idle) == 2);
    CHECK(up > 0);
    double one, five, fifteen;
    int running, all, last;
    CHECK(std::sscanf(read_file("/proc/loadavg").c_str(), "%lf %lf %lf %d/%d %d", &one, &five,
                      &fifteen, &running, &all, &last) == 6);
    CHECK(read_file("/proc/stat").starts_with("cpu "));
    CHECK(read_file("/proc/stat").find("\nbtime ") != std::string::npos);
    CHECK(read_file("/proc/version").starts_with("Linux version "));
    CHECK(read_file("/proc/cpuinfo").starts_with("processor\t: 0\n"));
    CHECK(read_file("/proc/filesystems").find("nodev\tproc\n") != std::string::npos);
}

TEST_CASE("/proc/sys/kernel: what programs look up") {
    CHECK(std::stoi(read_file("/proc/sys/kernel/pid_max")) > 300);
    CHECK(!read_file("/proc/sys/kernel/osrelease").empty());
    CHECK(read_file("/proc/sys/kernel/ostype") == "Linux\n");
    CHECK(!read_file("/proc/sys/kernel/hostname").empty());
    CHECK(!read_file("/proc/sys/fs/file-max").empty());
    CHECK(!read_file("/proc/sys/vm/overcommit_memory").empty());
    const std::string a = read_file("/proc/sys/kernel/random/uuid");
    CHECK(a.size() == 37);
    CHECK(a != read_file("/proc/sys/kernel/random/uuid"));
}

TEST_CASE("/proc: lists the running processes, and nothing can be made in it") {
    Child child([] { ::pause(); });
    const auto all = names("/proc");
    CHECK(all.count(std::to_string(::getpid())) == 1);
    CHECK(all.count(std::to_string(child.pid())) == 1);
    CHECK_THAT(::mkdir("/proc/x", 0755), fails_with_any({ENOENT, EPERM, EACCES, EROFS}));
    CHECK_THAT(::open("/proc/x", O_CREAT | O_RDWR, 0600),
               fails_with_any({ENOENT, EPERM, EACCES, EROFS}));
    struct statfs fs;
    REQUIRE_THAT(::statfs("/proc", &fs), succeeds());
    CHECK(fs.f_type == 0x9fa0);
}

TEST_CASE("/proc: files can be read in small pieces and from the middle") {
    const std::string whole = read_file("/proc/version");
    const FileDescriptor fd = open_file("/proc/version", O_RDONLY);
    std::string pieces;
    char c;
    while (::read(fd.get(), &c, 1) == 1) {
        pieces += c;
    }
    CHECK(pieces == whole);
    char buffer[8];
    CHECK_THAT(::pread(fd.get(), buffer, 7, 6), succeeds_with(7));
    CHECK(std::string(buffer, 7) == "version");
}

TEST_CASE("/proc: another user's process keeps its secrets") {
    Child root_owned([] { ::pause(); });
    const std::string dir = "/proc/" + std::to_string(root_owned.pid());
    in_child([&] {
        CHILD_THAT(::setgid(12345), succeeds());
        CHILD_THAT(::setuid(12345), succeeds());
        char c;
        CHILD_THAT(::readlink((dir + "/exe").c_str(), &c, 1), fails_with(EACCES));
        CHILD_THAT(::open((dir + "/environ").c_str(), O_RDONLY), fails_with(EACCES));
        CHILD_THAT(::open((dir + "/mem").c_str(), O_RDONLY), fails_with(EACCES));
        CHILD_THAT(::open((dir + "/fd").c_str(), O_RDONLY), fails_with(EACCES));
        CHILD_THAT(::open((dir + "/stat").c_str(), O_RDONLY), succeeds());
    });
}

}  // namespace
