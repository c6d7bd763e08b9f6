#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <ostream>
#include <source_location>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/fd.h"

namespace guest {

/// The exit status of a child in which CHILD_CHECK or CHILD_THAT failed (the text is printed).
constexpr int kChildFailed = 113;

/// A wait(2) status, so that nobody writes WIFSIGNALED by hand.
class WaitStatus {
  public:
    explicit WaitStatus(int raw) : raw_(raw) {}
    int raw() const { return raw_; }
    bool operator==(const WaitStatus& other) const;
    std::string describe() const;

  private:
    int raw_;
};
std::ostream& operator<<(std::ostream& out, const WaitStatus& status);

WaitStatus exited(int code);
/// Killed by a signal; whether a core was written does not matter.
WaitStatus killed(int signal);
WaitStatus stopped(int signal);
WaitStatus continued();

/// A forked child that runs `body` and then exits with 0. Killed and reaped on destruction unless
/// it was waited for. The body must not use doctest: it has CHILD_CHECK and CHILD_THAT.
class Child {
  public:
    explicit Child(const std::function<void()>& body);
    ~Child();
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    pid_t pid() const { return pid_; }
    /// Blocks until the child ends (or, with options, changes its state).
    WaitStatus wait(int options = 0);
    /// waitpid(WNOHANG) says that it has not ended.
    bool running();
    void kill(int signal) const;

  private:
    pid_t pid_ = -1;
    bool reaped_ = false;
};

/// Runs `body` in a child and fails the case, at the caller's line, unless it exits with 0.
void in_child(const std::function<void()>& body,
              std::source_location where = std::source_location::current());
/// The status of `body` run in a child.
WaitStatus run_in_child(const std::function<void()>& body);

/// A pthread that is joined on destruction at the latest.
class Thread {
  public:
    explicit Thread(std::function<void()> body);
    ~Thread();
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    void join();
    /// Never joins: for threads that ended behind libc's back.
    void forget() { joined_ = true; }
    /// The kernel's thread id; waits until the thread has started.
    pid_t tid() const;
    pthread_t handle() const { return handle_; }

  private:
    static void* run(void* self);
    std::function<void()> body_;
    pthread_t handle_{};
    std::atomic<pid_t> tid_{0};
    bool joined_ = false;
};

/// An event between processes or threads: one open() lets one wait() through.
class Gate {
  public:
    void open();
    /// Fails the case or the child when the gate stays shut for the upper limit.
    void wait();

  private:
    Pipe pipe_;
};

/// Upper limit for events that must come; generous, because machines are loaded.
constexpr int kPatienceSeconds = 25;

/// Polls until `condition` holds, for kPatienceSeconds at most; whether it held.
bool eventually(const std::function<bool()>& condition);
/// Waits until a thread sleeps in the kernel, by /proc/<pid>/task/<tid>/stat. Fails the case or the
/// child when it never does.
void wait_until_blocked(pid_t pid, pid_t tid = 0);
/// The state letter of /proc/<pid>/task/<tid>/stat, 0 when it cannot be read.
char thread_state(pid_t pid, pid_t tid);

pid_t gettid_now();
/// Computes without any system call until the process is ended.
[[noreturn]] void spin_forever();

/// The path of this binary, from /proc/self/exe.
std::string self_exe();
/// argv for running GUEST_HELPER `name` of this binary.
std::vector<std::string> helper_argv(const std::string& name, std::vector<std::string> args = {});
/// execve of this binary's helper; comes back only on failure.
int exec_helper(const std::string& name, std::vector<std::string> args = {});
/// execve with vectors of strings.
int exec_path(const std::string& path, std::vector<std::string> argv, std::vector<std::string> env);

struct HelperRegistration {
    using Function = int (*)(int argc, char** argv);
    HelperRegistration(const char* name, Function function);
};

}  // namespace guest

/// A second main() in this binary, reached by exec_helper("name", args): argv holds only the args.
#define GUEST_HELPER(name)                                                                     \
    static int helper_##name(int argc, char** argv);                                           \
    static const ::guest::HelperRegistration helper_registration_##name{#name, helper_##name}; \
    static int helper_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)
