#include "unit/fsgofer/harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace moat::gofer::test {

TempDir::TempDir() {
    const char* base = getenv("TMPDIR");
    std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/moat-gofer-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    REQUIRE(::chmod(path_.c_str(), 0755) == 0);
}

TempDir::~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

void TempDir::file(const std::string& name, const std::string& contents) const {
    std::ofstream(path_ + "/" + name) << contents;
}

void TempDir::directory(const std::string& name) const {
    REQUIRE(::mkdir((path_ + "/" + name).c_str(), 0755) == 0);
}

void TempDir::link(const std::string& name, const std::string& target) const {
    REQUIRE(::symlink(target.c_str(), (path_ + "/" + name).c_str()) == 0);
}

std::string TempDir::read(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(path_ + "/" + name).rdbuf();
    return text.str();
}

SocketPair make_channel() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    return {ScopedFd(ends[0]), ScopedFd(ends[1])};
}

Gofer::Gofer(const TempDir& directory, const Options& options) {
    SocketPair channel = make_channel();
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
        channel.ours.reset();
        if (options.descriptor_limit != 0) {
            const rlimit limit{options.descriptor_limit, options.descriptor_limit};
            if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
                ::_exit(9);
            }
        }
        ::umask(0);
        const size_t slash = directory.path().rfind('/');
        const std::string parent = directory.path().substr(0, slash);
        const int base = ::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
        Server server(options.descriptors);
        bool good =
            server.add_mount({base, directory.path().substr(slash + 1), "/", options.flags}).ok();
        for (const ServedMount& mount : options.more) {
            good = good && server.add_mount(mount).ok();
        }
        ::_exit(good && server.serve(std::move(channel.theirs)).ok() ? 0 : 8);
    }
    channel.theirs.reset();
    std::string message;
    auto client = Client::connect(std::move(channel.ours), &message);
    REQUIRE_MESSAGE(client.ok(), message);
    client_ = std::move(client).value();
}

Gofer::~Gofer() {
    if (pid_ > 0) {
        CHECK_EQ(finish(), 0);
    }
}

int Gofer::finish() {
    client_.reset();
    return wait_for(std::exchange(pid_, -1));
}

size_t Gofer::open_descriptors() const { return count_descriptors(pid_); }

Node Gofer::at(const std::string& path) {
    const auto walked = MUST(client_->walk(root(), path));
    REQUIRE_MESSAGE((walked.nodes.size() > 0 && walked.error == 0), path);
    return walked.nodes.back();
}

size_t count_descriptors(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd";
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
        (void)entry;
        n++;
    }
    return n;
}

std::string status_line(pid_t pid, const std::string& key) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with(key + ":\t")) {
            return line.substr(key.size() + 2);
        }
    }
    return "";
}

int wait_for(pid_t pid) {
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    return status;
}

}  // namespace moat::gofer::test
