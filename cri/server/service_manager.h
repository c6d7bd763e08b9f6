#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace moat::cri {

/// Tells systemd how moatd does (sd_notify(3)). The protocol is one datagram; libsystemd would
/// bring its compressors and its lock-file readers into a root daemon for it, which is why
/// sd_notify(3) itself shows how to do without. Without NOTIFY_SOCKET nothing is sent.
class ServiceManager {
  public:
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes them from the environment.
    ServiceManager();
    ~ServiceManager();

    /// "READY=1\nSTATUS=..."
    void notify(const std::string& text) const;
    /// RELOADING=1 with the time that Type=notify-reload asks for.
    void reloading() const;
    /// Feeds the watchdog, twice in its time, as long as `answers` says yes.
    void watch(std::function<bool()> answers);

  private:
    std::string socket_;
    int64_t watchdog_us_ = 0;
    std::mutex mu_;
    std::condition_variable wake_;
    bool ends_ = false;  ///< guarded by mu_
    std::thread thread_;
};

}  // namespace moat::cri
