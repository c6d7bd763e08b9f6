#define DOCTEST_CONFIG_IMPLEMENT
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS  // the cases own the signal handlers
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

namespace guest {

namespace {

bool in_sentry = false;
bool forked = false;
/// A copy of standard output high up, so that cases may close or redirect 0 to 2.
int report_fd = 1;
constexpr int kReportFdFloor = 190;
bool case_skipped = false;

void report_line(const std::string& line) {
    const std::string text = line + "\n";
    // One write: lines of parent and children do not mix.
    [[maybe_unused]] const ssize_t ignored = ::write(report_fd, text.data(), text.size());
}

std::string one_line(std::string text) {
    for (char& c : text) {
        if (c == '\n') {
            c = ' ';
        }
    }
    return text;
}

std::map<std::string, HelperRegistration::Function>& helpers() {
    static std::map<std::string, HelperRegistration::Function> all;
    return all;
}

/// Prints one line when a case starts and one when it ends, at once, so that run.py knows what was
/// running when a binary hangs or dies:  @start NAME | @pass NAME | @fail NAME | @skip NAME
struct LineReporter : doctest::IReporter {
    explicit LineReporter(const doctest::ContextOptions& options) : options_(options) {}

    void report_query(const doctest::QueryData& query) override {
        for (unsigned i = 0; i < query.num_data; ++i) {
            report_line(std::string("@case ") + query.data[i]->m_name);
        }
    }
    void test_run_start() override {}
    void test_run_end(const doctest::TestRunStats& stats) override {
        report_line("@end " + std::to_string(stats.numTestCasesPassingFilters) + " cases, " +
                    std::to_string(stats.numTestCasesFailed) + " failed");
    }
    void test_case_start(const doctest::TestCaseData& data) override {
        current_ = data.m_name;
        case_skipped = false;
        report_line("@start " + current_);
    }
    void test_case_reenter(const doctest::TestCaseData&) override {}
    void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
        const char* verdict = !stats.testCaseSuccess ? "@fail "
                              : case_skipped         ? "@skip "
                                                     : "@pass ";
        report_line(verdict + current_);
    }
    void test_case_exception(const doctest::TestCaseException& e) override {
        report_line(std::string("  exception: ") + one_line(e.error_string.c_str()));
    }
    void subcase_start(const doctest::SubcaseSignature&) override {}
    void subcase_end() override {}
    void log_assert(const doctest::AssertData& data) override {
        if (!data.m_failed) {
            return;
        }
        report_line("  " + std::string(data.m_file) + ":" + std::to_string(data.m_line) + ": " +
                    one_line(data.m_expr) + " -> " + one_line(data.m_decomp.c_str()));
        const int contexts = get_num_active_contexts();
        for (int i = 0; i < contexts; ++i) {
            std::ostringstream text;
            get_active_contexts()[i]->stringify(&text);
            report_line("    with " + one_line(text.str()));
        }
    }
    void log_message(const doctest::MessageData& data) override {
        report_line("  " + std::string(data.m_file) + ":" + std::to_string(data.m_line) + ": " +
                    one_line(data.m_string.c_str()));
    }
    void test_case_skipped(const doctest::TestCaseData&) override {}

    const doctest::ContextOptions& options_;
    std::string current_;
};
DOCTEST_REGISTER_REPORTER("lines", 1, LineReporter);

/// A shell in the background or a service manager may have left signals ignored or blocked.
void default_signals() {
    for (int signal = 1; signal < NSIG; ++signal) {
        ::signal(signal, SIG_DFL);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

int run_tests(int argc, char** argv) {
    default_signals();
    doctest::Context context;
    context.setOption("reporters", "lines");
    context.setOption("no-intro", true);
    context.applyCommandLine(argc, argv);
    return context.run();
}

/// As init of a pid namespace the program must not be what the cases test: signals and orphans
/// behave differently for init. So init waits and a child tests.
int run_below_init(int argc, char** argv) {
    const pid_t tests = ::fork();
    if (tests < 0) {
        return 1;
    }
    if (tests == 0) {
        ::_exit(run_tests(argc, argv));
    }
    for (;;) {
        int status = 0;
        const pid_t pid = ::wait(&status);
        if (pid == tests) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (pid < 0 && errno != EINTR) {
            return 1;
        }
    }
}

}  // namespace

bool running_in_sentry() { return in_sentry; }
void set_in_child() { forked = true; }
bool in_child_process() { return forked; }

void report_skip(const std::string& reason) {
    case_skipped = true;
    report_line("  skip: " + reason);
}

void child_failed(const char* file, int line, const std::string& text) {
    report_line("  " + std::string(file) + ":" + std::to_string(line) +
                ": child: " + one_line(text));
    ::_exit(kChildFailed);
}

void fatal(const std::string& text) {
    if (forked) {
        report_line("  child: " + one_line(text));
        ::_exit(kChildFailed);
    }
    FAIL(doctest::String(text.c_str()));
    std::abort();  // FAIL throws
}

HelperRegistration::HelperRegistration(const char* name, Function function) {
    helpers().emplace(name, function);
}

}  // namespace guest

int main(int argc, char** argv) {
    constexpr std::string_view kHelper = "--helper=";
    const char* environment = std::getenv("MOAT_GUEST");
    guest::in_sentry = environment != nullptr && std::strcmp(environment, "1") == 0;
    const int copy = ::fcntl(1, F_DUPFD_CLOEXEC, guest::kReportFdFloor);
    guest::report_fd = copy >= 0 ? copy : 1;

    if (argc >= 2 && std::string_view(argv[1]).starts_with(kHelper)) {
        guest::set_in_child();
        const auto helper = guest::helpers().find(argv[1] + kHelper.size());
        return helper == guest::helpers().end() ? 127 : helper->second(argc - 2, argv + 2);
    }
    std::vector<char*> arguments;
    for (int i = 0; i < argc; ++i) {
        if (std::strcmp(argv[i], "--moat-guest") == 0) {
            guest::in_sentry = true;
            ::setenv("MOAT_GUEST", "1", 1);
        } else {
            arguments.push_back(argv[i]);
        }
    }
    const int count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    return ::getpid() == 1 ? guest::run_below_init(count, arguments.data())
                           : guest::run_tests(count, arguments.data());
}
