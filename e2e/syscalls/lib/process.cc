#include "e2e/syscalls/lib/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>

#include "e2e/syscalls/lib/guest.h"

namespace guest {

bool WaitStatus::operator==(const WaitStatus& other) const {
    if (WIFSIGNALED(raw_) && WIFSIGNALED(other.raw_)) {
        return WTERMSIG(raw_) == WTERMSIG(other.raw_);
    }
    return raw_ == other.raw_;
}

std::string WaitStatus::describe() const {
    if (WIFEXITED(raw_)) {
        return "exited " + std::to_string(WEXITSTATUS(raw_));
    }
    const auto name = [](int signal) {
        const char* abbreviation = sigabbrev_np(signal);
        return abbreviation != nullptr ? std::string("SIG") + abbreviation : std::to_string(signal);
    };
    if (WIFSIGNALED(raw_)) {
        return "killed by " + name(WTERMSIG(raw_));
    }
    if (WIFSTOPPED(raw_)) {
        return "stopped by " + name(WSTOPSIG(raw_));
    }
    return WIFCONTINUED(raw_) ? "continued" : "status " + std::to_string(raw_);
}

std::ostream& operator<<(std::ostream& out, const WaitStatus& status) {
    return out << status.describe();
}

WaitStatus exited(int code) { return WaitStatus(W_EXITCODE(code, 0)); }
WaitStatus killed(int signal) { return WaitStatus(W_EXITCODE(0, signal)); }
WaitStatus stopped(int signal) { return WaitStatus(W_STOPCODE(signal)); }
WaitStatus continued() { return WaitStatus(0xffff); }

Child::Child(const std::function<void()>& body) {
    pid_ = ::fork();
    if (pid_ < 0) {
        fatal("fork: " + errno_name(errno));
    }
    if (pid_ == 0) {
        set_in_child();
        if (!running_in_sentry()) {
            // A killed test run must not leave blocked children on the machine.
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        }
        body();
        ::_exit(0);
    }
}

Child::~Child() {
    if (!reaped_) {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
}

WaitStatus Child::wait(int options) {
    int status = 0;
    pid_t got;
    do {
        got = ::waitpid(pid_, &status, options);
    } while (got < 0 && errno == EINTR);
    if (got != pid_) {
        fatal("waitpid: " + errno_name(errno));
    }
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        reaped_ = true;
    }
    return WaitStatus(status);
}

bool Child::running() {
    if (reaped_) {
        return false;
    }
    siginfo_t info;
    info.si_pid = 0;
    if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        return false;
    }
    return info.si_pid == 0;
}

void Child::kill(int signal) const { ::kill(pid_, signal); }

WaitStatus run_in_child(const std::function<void()>& body) {
    Child child(body);
    return child.wait();
}

void in_child(const std::function<void()>& body, std::source_location where) {
    const WaitStatus status = run_in_child(body);
    if (status == exited(0)) {
        CHECK(true);  // so that the case counts an assertion
        return;
    }
    const std::string text = "the child " + status.describe();
    ADD_FAIL_CHECK_AT(where.file_name(), static_cast<int>(where.line()),
                      doctest::String(text.c_str()));
}

Thread::Thread(std::function<void()> body) : body_(std::move(body)) {
    const int error = ::pthread_create(&handle_, nullptr, run, this);
    if (error != 0) {
        fatal("pthread_create: " + errno_name(error));
    }
}

Thread::~Thread() { join(); }

void Thread::join() {
    if (!joined_) {
        joined_ = true;
        ::pthread_join(handle_, nullptr);
    }
}

pid_t Thread::tid() const {
    if (!eventually([this] { return tid_.load() != 0; })) {
        fatal("a thread does not start");
    }
    return tid_.load();
}

void* Thread::run(void* self) {
    auto* thread = static_cast<Thread*>(self);
    thread->tid_ = gettid_now();
    thread->body_();
    return nullptr;
}

void Gate::open() {
    if (!write_all(pipe_.write_end.get(), "x")) {
        fatal("gate: " + errno_name(errno));
    }
}

void Gate::wait() {
    pollfd poll_fd{pipe_.read_end.get(), POLLIN, 0};
    int ready;
    do {
        ready = ::poll(&poll_fd, 1, kPatienceSeconds * 1000);
    } while (ready < 0 && errno == EINTR);
    if (ready != 1 || read_exactly(pipe_.read_end.get(), 1).size() != 1) {
        fatal("an expected event did not come: the gate stayed shut");
    }
}

bool eventually(const std::function<bool()>& condition) {
    timespec start;
    ::clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        if (condition()) {
            return true;
        }
        timespec now;
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > kPatienceSeconds) {
            return condition();
        }
        const timespec pause{0, 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

char thread_state(pid_t pid, pid_t tid) {
    const std::string stat =
        read_file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/stat");
    const size_t end_of_name = stat.rfind(") ");
    return end_of_name == std::string::npos || end_of_name + 2 >= stat.size()
               ? '\0'
               : stat[end_of_name + 2];
}

void wait_until_blocked(pid_t pid, pid_t tid) {
    if (tid == 0) {
        tid = pid;
    }
    if (!eventually([=] { return thread_state(pid, tid) == 'S'; })) {
        const char state = thread_state(pid, tid);
        fatal(std::string("a thread does not block; its state is ") +
              (state != 0 ? std::string(1, state) : "unreadable"));
    }
}

pid_t gettid_now() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

void spin_forever() {
    for (;;) {
        asm volatile("pause" ::: "memory");
    }
}

std::string self_exe() {
    char path[4096];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0) {
        fatal("readlink /proc/self/exe: " + errno_name(errno));
    }
    return {path, static_cast<size_t>(n)};
}

std::vector<std::string> helper_argv(const std::string& name, std::vector<std::string> args) {
    std::vector<std::string> argv{self_exe(), "--helper=" + name};
    argv.insert(argv.end(), args.begin(), args.end());
    return argv;
}

int exec_helper(const std::string& name, std::vector<std::string> args) {
    std::vector<std::string> env;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        env.emplace_back(*entry);
    }
    return exec_path(self_exe(), helper_argv(name, std::move(args)), env);
}

int exec_path(const std::string& path, std::vector<std::string> argv,
              std::vector<std::string> env) {
    const auto pointers = [](std::vector<std::string>& strings) {
        std::vector<char*> out;
        for (std::string& s : strings) {
            out.push_back(s.data());
        }
        out.push_back(nullptr);
        return out;
    };
    return ::execve(path.c_str(), pointers(argv).data(), pointers(env).data());
}

}  // namespace guest
