#include "cri/server/service_manager.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>

#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

std::string take_environment(const char* name) {
    const char* value = getenv(name);
    std::string text = value == nullptr ? "" : value;
    unsetenv(name);  // plugins and sentries are no services
    return text;
}

}  // namespace

ServiceManager::ServiceManager() : socket_(take_environment("NOTIFY_SOCKET")) {
    const std::string usec = take_environment("WATCHDOG_USEC");
    const std::string pid = take_environment("WATCHDOG_PID");
    if (pid.empty() || pid == std::to_string(getpid())) {
        watchdog_us_ = strtoll(usec.c_str(), nullptr, 10);
    }
}

ServiceManager::~ServiceManager() {
    {
        const std::lock_guard lock(mu_);
        ends_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void ServiceManager::notify(const std::string& text) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_.empty() || socket_.size() >= sizeof(address.sun_path)) {
        return;
    }
    socket_.copy(address.sun_path, socket_.size());
    if (address.sun_path[0] == '@') {
        address.sun_path[0] = 0;  // an abstract one
    }
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
    const ScopedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd || sendto(fd.get(), text.data(), text.size(), MSG_NOSIGNAL,
                      reinterpret_cast<sockaddr*>(&address), length) < 0) {
        spdlog::warn("service manager: {}: {}", socket_, std::generic_category().message(errno));
    }
}

void ServiceManager::reloading() const {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t usec = int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
    notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec) +
           "\nSTATUS=Reading the configuration again");
}

void ServiceManager::watch(std::function<bool()> answers) {
    if (watchdog_us_ <= 0) {
        return;
    }
    thread_ = std::thread([this, answers = std::move(answers)] {
        std::unique_lock lock(mu_);
        while (!wake_.wait_for(lock, std::chrono::microseconds(watchdog_us_ / 2),
                               [&] { return ends_; })) {
            lock.unlock();
            if (answers()) {
                notify("WATCHDOG=1");
            } else {
                spdlog::error("moatd does not answer on its own socket: the watchdog is not fed");
            }
            lock.lock();
        }
    });
}

}  // namespace moat::cri
