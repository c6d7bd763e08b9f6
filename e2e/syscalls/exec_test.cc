// execve(2), execveat(2), the auxiliary vector and what survives an exec.

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// Prints its arguments, one a line.
GUEST_HELPER(print_args) {
    for (int i = 0; i < argc; ++i) {
        write_all(1, std::string(argv[i]) + "\n");
    }
    return 0;
}

GUEST_HELPER(print_env) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
        write_all(1, std::string(*entry) + "\n");
    }
    return 0;
}

/// Exits 0 when a descriptor is open, 1 when it is not.
GUEST_HELPER(is_open) { return ::fcntl(std::atoi(argv[0]), F_GETFD) >= 0 ? 0 : 1; }

GUEST_HELPER(exit_code) { return std::atoi(argv[0]); }

/// Runs the body in a child with standard output in a pipe; what it printed.
std::string output_of(const std::function<void()>& body) {
    Pipe pipe;
    Child child([&] {
        ::dup2(pipe.write_end.get(), 1);
        pipe.read_end.reset();
        pipe.write_end.reset();
        body();
        ::_exit(kChildFailed);
    });
    pipe.write_end.reset();
    const std::string output = read_all(pipe.read_end.get());
    CHECK(child.wait() == exited(0));
    return output;
}

TEST_CASE("execve: arguments arrive unchanged, empty ones too") {
    CHECK(output_of([] {
              exec_helper("print_args", {"one", "", "t w o", "3"});
          }) == "one\n\nt w o\n3\n");
}

TEST_CASE("execve: the environment is exactly what was given") {
    CHECK(output_of([] {
              exec_path(self_exe(), helper_argv("print_env"), {"A=1", "B=", "no equals sign"});
          }) == "A=1\nB=\nno equals sign\n");
}

TEST_CASE("execve: two thousand arguments of a hundred bytes") {
    const std::vector<std::string> many(2000, std::string(100, 'q'));
    const std::string output = output_of([&] { exec_helper("print_args", many); });
    CHECK(output.size() == 2000 * 101);
}

TEST_CASE("execve: a single argument over 128 KiB fails with E2BIG") {
    in_child([] {
        CHILD_THAT(exec_helper("print_args", {std::string(131072, 'x')}), fails_with(E2BIG));
    });
}

TEST_CASE("execve: the pid stays, the parent too") {
    const pid_t parent = ::getpid();
    Child child([&] {
        CHILD_CHECK(::getppid() == parent);
        exec_helper("exit_code", {"33"});
    });
    CHECK(child.wait() == exited(33));
}

TEST_CASE("execve: close-on-exec descriptors close, the others stay") {
    Pipe pipe;
    const int kept = ::fcntl(pipe.read_end.get(), F_DUPFD, 50);
    const int closed = ::fcntl(pipe.read_end.get(), F_DUPFD_CLOEXEC, 60);
    CHECK(run_in_child([=] { exec_helper("is_open", {std::to_string(kept)}); }) == exited(0));
    CHECK(run_in_child([=] { exec_helper("is_open", {std::to_string(closed)}); }) == exited(1));
    ::close(kept);
    ::close(closed);
}

TEST_CASE("execve: a failed exec keeps close-on-exec descriptors") {
    Pipe pipe;
    in_child([&] {
        CHILD_THAT(::execl("/nonexistent/program", "x", nullptr), fails_with(ENOENT));
        CHILD_THAT(::fcntl(pipe.read_end.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
    });
}

GUEST_HELPER(signal_state) {
    struct sigaction action;
    std::string text;
    for (const int signal : {SIGUSR1, SIGUSR2}) {
        ::sigaction(signal, nullptr, &action);
        text += action.sa_handler == SIG_DFL   ? "default "
                : action.sa_handler == SIG_IGN ? "ignored "
                                               : "handler ";
    }
    sigset_t mask, pending;
    ::sigprocmask(SIG_BLOCK, nullptr, &mask);
    ::sigpending(&pending);
    text += sigismember(&mask, SIGTERM) ? "masked " : "open ";
    text += sigismember(&pending, SIGTERM) ? "pending" : "none";
    write_all(1, text);
    return 0;
}

TEST_CASE("execve: handlers become default, ignored signals, mask and pending ones stay") {
    CHECK(output_of([] {
              ::signal(SIGUSR1, [](int) {});
              ::signal(SIGUSR2, SIG_IGN);
              sigset_t set;
              ::sigemptyset(&set);
              ::sigaddset(&set, SIGTERM);
              ::sigprocmask(SIG_SETMASK, &set, nullptr);
              ::raise(SIGTERM);
              exec_helper("signal_state");
          }) == "default ignored masked pending");
}

GUEST_HELPER(sigaltstack_state) {
    stack_t stack;
    ::sigaltstack(nullptr, &stack);
    return stack.ss_flags & SS_DISABLE ? 0 : 1;
}

TEST_CASE("execve: the alternate signal stack is gone") {
    CHECK(run_in_child([] {
              static char memory[65536];
              const stack_t stack{memory, 0, sizeof memory};
              CHILD_THAT(::sigaltstack(&stack, nullptr), succeeds());
              exec_helper("sigaltstack_state");
          }) == exited(0));
}

GUEST_HELPER(inherited_state) {
    rlimit limit;
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const mode_t mask = ::umask(0);
    char cwd[4096];
    write_all(1, std::string(::getcwd(cwd, sizeof cwd)) + " " + std::to_string(mask) + " " +
                     std::to_string(limit.rlim_cur) + " " +
                     (::alarm(0) > 0 ? "alarm" : "no alarm"));
    return 0;
}

TEST_CASE("execve: directory, umask, limits and the alarm stay") {
    TempDir dir;
    CHECK(output_of([&] {
              CHILD_THAT(::chdir(dir.path().c_str()), succeeds());
              ::umask(027);
              rlimit limit;
              ::getrlimit(RLIMIT_NOFILE, &limit);
              limit.rlim_cur = 321;
              CHILD_THAT(::setrlimit(RLIMIT_NOFILE, &limit), succeeds());
              ::alarm(1000);
              exec_helper("inherited_state");
          }) == dir.path() + " 23 321 alarm");
}

GUEST_HELPER(print_comm) {
    char name[16] = {};
    ::prctl(PR_GET_NAME, name);
    write_all(1, name);
    return 0;
}

TEST_CASE("execve: the command name is the file's name, cut at 15 bytes") {
    TempDir dir;
    const std::string link = dir / "a-rather-long-program-name";
    REQUIRE_THAT(::symlink(self_exe().c_str(), link.c_str()), succeeds());
    CHECK(output_of([&] {
              exec_path(link, {"argv0", "--helper=print_comm"}, {});
          }) == "a-rather-long-p");
}

TEST_CASE("execve: a script runs its interpreter with its path as the last argument") {
    TempDir dir;
    const std::string script =
        dir.file("script", "#!" + self_exe() + " --helper=print_args\nignored\n", 0755);
    CHECK(output_of([&] {
              exec_path(script, {"argv0 is lost", "x", "y"}, {});
          }) == script + "\nx\ny\n");
}

TEST_CASE("execve: a script's interpreter may itself be a script") {
    TempDir dir;
    const std::string inner = dir.file("inner", "#!" + self_exe() + " --helper=print_args\n", 0755);
    const std::string outer = dir.file("outer", "#! \t" + inner + " flag\t \n", 0755);
    CHECK(output_of([&] {
              exec_path(outer, {"x", "last"}, {});
          }) == inner + "\nflag\n" + outer + "\nlast\n");
}

TEST_CASE("execve: scripts that run each other in a circle fail with ELOOP") {
    TempDir dir;
    const std::string script = dir.file("self", "#!" + (dir / "self") + "\n", 0755);
    in_child([&] { CHILD_THAT(exec_path(script, {"x"}, {}), fails_with(ELOOP)); });
}

TEST_CASE("execve: a script whose interpreter is missing fails with ENOENT") {
    TempDir dir;
    const std::string script = dir.file("script", "#!/nonexistent/interpreter\n", 0755);
    in_child([&] { CHILD_THAT(exec_path(script, {"x"}, {}), fails_with(ENOENT)); });
}

TEST_CASE("execve: files that are no programs fail with ENOEXEC") {
    TempDir dir;
    const std::string text = dir.file("text", "hello\n", 0755);
    const std::string empty = dir.file("empty", "", 0755);
    const std::string magic = dir.file("magic", std::string(ELFMAG) + "broken", 0755);
    for (const std::string& path : {text, empty, magic}) {
        in_child([&] { CHILD_THAT(exec_path(path, {"x"}, {}), fails_with(ENOEXEC)); });
    }
}

TEST_CASE("execve: an ELF file for another machine or cut short fails") {
    TempDir dir;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_AARCH64;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    header.e_phoff = sizeof header;
    const auto bytes = [&] {
        return std::string(reinterpret_cast<const char*>(&header), sizeof header);
    };
    const std::string foreign =
        dir.file("foreign", bytes() + std::string(sizeof(Elf64_Phdr), 0), 0755);
    in_child([&] { CHILD_THAT(exec_path(foreign, {"x"}, {}), fails_with(ENOEXEC)); });
    header.e_machine = EM_X86_64;
    const std::string cut = dir.file("cut", bytes(), 0755);
    in_child([&] { CHILD_THAT(exec_path(cut, {"x"}, {}), fails_with_any({ENOEXEC, EIO})); });
    header.e_phnum = 0;
    const std::string none = dir.file("none", bytes(), 0755);
    in_child([&] { CHILD_THAT(exec_path(none, {"x"}, {}), fails_with(ENOEXEC)); });
}

TEST_CASE("execve: a segment that leads into the kernel's half kills or fails, but harms nobody") {
    TempDir dir;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    header.e_phoff = sizeof header;
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    load.p_flags = PF_R | PF_W | PF_X;
    load.p_filesz = 0x1000;
    load.p_memsz = 0x1000;
    for (const unsigned long address : {0x7ffffffff000UL, 0xffffffff80000000UL, ~0xfffUL}) {
        load.p_vaddr = address;
        header.e_entry = address;
        std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
        bytes.append(reinterpret_cast<const char*>(&load), sizeof load);
        bytes.resize(0x1000);
        const std::string path = dir.file("high", bytes, 0755);
        const WaitStatus status = run_in_child([&] {
            exec_path(path, {"x"}, {});
            ::_exit(44);
        });
        CHECK((status == exited(44) || status == killed(SIGKILL) || status == killed(SIGSEGV)));
    }
}

TEST_CASE("execve: errors of the path") {
    TempDir dir;
    const std::string plain = dir.file("plain", "#!/bin/sh\n", 0644);
    in_child([&] {
        CHILD_THAT(exec_path(plain, {"x"}, {}), fails_with(EACCES));
        CHILD_THAT(exec_path(dir.path(), {"x"}, {}), fails_with(EACCES));
        CHILD_THAT(exec_path(dir / "missing", {"x"}, {}), fails_with(ENOENT));
        CHILD_THAT(exec_path(plain + "/below", {"x"}, {}), fails_with(ENOTDIR));
        CHILD_THAT(exec_path("", {"x"}, {}), fails_with(ENOENT));
        CHILD_THAT(exec_path(std::string(5000, 'a'), {"x"}, {}), fails_with(ENAMETOOLONG));
    });
}

TEST_CASE("execve: bad pointers fail with EFAULT") {
    in_child([] {
        const std::string self = self_exe();
        char* argv[] = {const_cast<char*>("x"), nullptr};
        char* bad_argv[] = {bad<char>(), nullptr};
        CHILD_THAT(::syscall(SYS_execve, bad<char>(), argv, argv), fails_with(EFAULT));
        CHILD_THAT(::syscall(SYS_execve, self.c_str(), bad<char*>(), argv), fails_with(EFAULT));
        CHILD_THAT(::syscall(SYS_execve, self.c_str(), bad_argv, argv), fails_with(EFAULT));
        CHILD_THAT(::syscall(SYS_execve, self.c_str(), argv, bad_argv), fails_with(EFAULT));
    });
}

TEST_CASE("execve: a file that somebody writes fails with ETXTBSY") {
    TempDir dir;
    const std::string copy = dir.file("copy", read_file(self_exe()), 0755);
    const FileDescriptor writer = open_file(copy, O_WRONLY);
    // Where it is executed all the same it must not run this program's cases.
    in_child([&] {
        CHILD_THAT(exec_path(copy, helper_argv("exit_code", {"9"}), {}), fails_with(ETXTBSY));
    });
}

TEST_CASE("execve: from a thread takes over the process id and ends the others") {
    Child child([] {
        Pipe pipe;
        char c;
        Thread blocked([&] { (void)::read(pipe.read_end.get(), &c, 1); });
        wait_until_blocked(::getpid(), blocked.tid());
        const pid_t pid = ::getpid();
        Thread executing([=] {
            exec_helper("exit_code", {std::to_string(pid % 100)});
            ::_exit(kChildFailed);
        });
        executing.join();
    });
    const int expected = child.pid() % 100;
    CHECK(child.wait() == exited(expected));
}

TEST_CASE("execve: while other threads fork without end") {
    for (int round = 0; round < 5; ++round) {
        const WaitStatus status = run_in_child([] {
            for (int i = 0; i < 3; ++i) {
                new Thread([] {
                    for (;;) {
                        const pid_t pid = ::fork();
                        if (pid == 0) {
                            ::_exit(0);
                        }
                        if (pid > 0) {
                            ::waitpid(pid, nullptr, 0);
                        }
                    }
                });
            }
            exec_helper("exit_code", {"66"});
        });
        CHECK(status == exited(66));
    }
}

TEST_CASE("execveat: AT_EMPTY_PATH runs the descriptor's file") {
    const FileDescriptor fd = open_file(self_exe(), O_RDONLY);
    char* argv[] = {const_cast<char*>("x"), const_cast<char*>("--helper=exit_code"),
                    const_cast<char*>("12"), nullptr};
    CHECK(run_in_child([&] {
              ::syscall(SYS_execveat, fd.get(), "", argv, environ, AT_EMPTY_PATH);
          }) == exited(12));
}

TEST_CASE("execveat: relative to a directory, symbolic links refused on request") {
    TempDir dir;
    REQUIRE_THAT(::symlink(self_exe().c_str(), (dir / "link").c_str()), succeeds());
    const FileDescriptor fd = open_file(dir.path(), O_RDONLY | O_DIRECTORY);
    char* argv[] = {const_cast<char*>("x"), const_cast<char*>("--helper=exit_code"),
                    const_cast<char*>("13"), nullptr};
    CHECK(run_in_child([&] { ::syscall(SYS_execveat, fd.get(), "link", argv, environ, 0); }) ==
          exited(13));
    in_child([&] {
        CHILD_THAT(::syscall(SYS_execveat, fd.get(), "link", argv, environ, AT_SYMLINK_NOFOLLOW),
                   fails_with(ELOOP));
        CHILD_THAT(::syscall(SYS_execveat, fd.get(), "link", argv, environ, 0x40000000),
                   fails_with(EINVAL));
    });
}

TEST_CASE("auxiliary vector: page size, entry, ids, random bytes and the file's name are there") {
    CHECK(::getauxval(AT_PAGESZ) == page_size());
    CHECK(::getauxval(AT_CLKTCK) == 100);
    CHECK(::getauxval(AT_UID) == ::getuid());
    CHECK(::getauxval(AT_EUID) == ::geteuid());
    CHECK(::getauxval(AT_GID) == ::getgid());
    CHECK(::getauxval(AT_SECURE) == 0);
    CHECK(::getauxval(AT_PHENT) == sizeof(Elf64_Phdr));
    CHECK(::getauxval(AT_PHNUM) > 0);
    const auto* header = reinterpret_cast<const Elf64_Phdr*>(::getauxval(AT_PHDR));
    REQUIRE(header != nullptr);
    bool loads = false;
    for (unsigned long i = 0; i < ::getauxval(AT_PHNUM); ++i) {
        loads = loads || header[i].p_type == PT_LOAD;
    }
    CHECK(loads);
    const auto* random = reinterpret_cast<const unsigned char*>(::getauxval(AT_RANDOM));
    REQUIRE(random != nullptr);
    CHECK(std::string(reinterpret_cast<const char*>(random), 16) != std::string(16, '\0'));
    const auto* name = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
    REQUIRE(name != nullptr);
    CHECK(std::string(name).find("exec") != std::string::npos);
}

GUEST_HELPER(print_random) {
    write_all(1, std::string(reinterpret_cast<const char*>(::getauxval(AT_RANDOM)), 16));
    return 0;
}

TEST_CASE("auxiliary vector: the random bytes differ from exec to exec") {
    const std::string a = output_of([] { exec_helper("print_random"); });
    const std::string b = output_of([] { exec_helper("print_random"); });
    CHECK(a.size() == 16);
    CHECK(a != b);
}

/// The alignment of the stack at the entry point, as the ABI wants it, seen from main's frame.
GUEST_HELPER(stack_limit) {
    // Touch a megabyte of the stack: it grows by faults.
    volatile char big[1 << 20];
    for (size_t i = 0; i < sizeof big; i += 4096) {
        big[i] = 1;
    }
    return big[0] == 1 ? 0 : 1;
}

TEST_CASE("execve: the new stack grows by being touched") {
    CHECK(run_in_child([] { exec_helper("stack_limit"); }) == exited(0));
}

TEST_CASE("execve: argv may be empty, the program then sees one empty argument") {
    // Linux: fs/exec.c:do_execveat_common adds "" since 5.18; /proc/self/cmdline shows one byte.
    TempDir dir;
    const std::string script = dir.file("s", "#!" + self_exe() + " --helper=print_args\n", 0755);
    CHECK(output_of([&] { exec_path(script, {}, {}); }) == script + "\n");
}

TEST_CASE("execve: unreadable but executable files run") {
    TempDir dir;
    const std::string copy = dir.file("copy", read_file(self_exe()), 0711);
    CHECK(run_in_child([&] {
              ::setgid(65534);
              CHILD_THAT(::setuid(65534), succeeds());
              CHILD_THAT(::open(copy.c_str(), O_RDONLY), fails_with(EACCES));
              exec_path(copy, {"x", "--helper=exit_code", "14"}, {});
          }) == exited(14));
}

}  // namespace
