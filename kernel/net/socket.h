#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernel/fs/file.h"
#include "kernel/net/socket_address.h"
#include "kernel/task/block.h"

namespace moat::kernel {

class PidNamespace;

/// Who sent a message or is at the other end (unix(7), SCM_CREDENTIALS).
struct PeerCredentials {
    int32_t pid = 0;
    uint32_t uid = UINT32_MAX;
    uint32_t gid = UINT32_MAX;
    /// Whose numbers `pid` is of; only compared, never followed.
    const PidNamespace* pids = nullptr;

    static PeerCredentials of(Task& task);
    bool operator==(const PeerCredentials&) const = default;
    /// As `task` sees them: 0 for a process outside its namespace.
    ucred seen_by(Task& task) const;
};

/// A control message that is neither descriptors nor credentials.
struct ControlMessage {
    int level = 0;
    int type = 0;
    std::vector<uint8_t> data;
};

/// Ancillary data (cmsg(3)), decoded.
struct Ancillary {
    std::vector<RefPtr<File>> files;             ///< SCM_RIGHTS
    std::optional<PeerCredentials> credentials;  ///< SCM_CREDENTIALS
    std::vector<ControlMessage> other;

    bool empty() const { return files.empty() && !credentials && other.empty(); }
};

/// One message on its way out.
struct SendRequest {
    IoBuffer& data;
    const SocketAddress* to = nullptr;  ///< null: the connected peer
    Ancillary* control = nullptr;       ///< moved from when the first byte is taken
    int flags = 0;                      ///< MSG_*
};

/// One message on its way in.
struct ReceiveRequest {
    IoBuffer& data;
    int flags = 0;
    // Results
    SocketAddress from;
    Ancillary control;
    int message_flags = 0;  ///< MSG_TRUNC, MSG_CTRUNC, MSG_EOR, MSG_OOB, ...
};

/// A socket's description. As with every file all operations are attempts: EAGAIN means "not yet,
/// look again when wait_queue() tells".
class Socket : public File {
  public:
    ~Socket() override;

    int domain() const { return domain_; }
    int type() const { return type_; }
    int protocol() const { return protocol_; }
    bool is_stream() const { return type_ == SOCK_STREAM; }

    virtual Status bind(Task& task, const SocketAddress& address) = 0;
    /// EINPROGRESS: under way, finish_connect() tells when wait_queue() says EPOLLOUT. EAGAIN: to
    /// be tried again then (a unix listener with a full backlog).
    virtual Status connect(Task& task, const SocketAddress& address) = 0;
    /// EINPROGRESS: still under way.
    virtual Status finish_connect(Task& task) = 0;
    virtual Status listen(Task& task, int backlog) = 0;
    /// `flags` for the new description: O_NONBLOCK or 0.
    virtual Result<RefPtr<Socket>> accept(Task& task, uint32_t flags) = 0;
    virtual Status shutdown(Task& task, int how) = 0;
    virtual Result<SocketAddress> local_address(Task& task) = 0;
    /// ENOTCONN.
    virtual Result<SocketAddress> peer_address(Task& task) = 0;
    /// For streams: what could be taken of the data, perhaps not all. EPIPE: the caller sends
    /// SIGPIPE.
    virtual Result<size_t> send(Task& task, SendRequest& request) = 0;
    /// 0 of a stream: end of file.
    virtual Result<size_t> receive(Task& task, ReceiveRequest& request) = 0;
    /// ENOPROTOOPT for what is not known. `value` is what the guest gave, at most 4096 bytes.
    Status set_option(Task& task, int level, int name, const std::vector<uint8_t>& value);
    Result<std::vector<uint8_t>> get_option(Task& task, int level, int name, size_t size);

    Deadline receive_deadline() const { return deadline(receive_timeout_ns_); }
    Deadline send_deadline() const { return deadline(send_timeout_ns_); }
    /// What a signal makes of a blocked call: restarted, unless it had a time limit (socket(7)).
    Errno interrupted(const Deadline& deadline) const {
        return deadline.is_never() ? kRestartSys : Errno(EINTR);
    }

    // File
    bool raises_sigpipe() const override { return is_stream(); }
    std::string anonymous_name() const override;
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<size_t> write(Task& task, IoBuffer& source) override;
    Result<struct stat> stat(Task& task) override;
    bool can_epoll() override { return true; }
    int64_t read_timeout_ns() override { return timeout(receive_timeout_ns_); }
    int64_t write_timeout_ns() override { return timeout(send_timeout_ns_); }

  protected:
    Socket(int domain, int type, int protocol, uint32_t flags);
    virtual Status set_own_option(Task& task, int level, int name,
                                  const std::vector<uint8_t>& value) = 0;
    virtual Result<std::vector<uint8_t>> get_own_option(Task& task, int level, int name,
                                                        size_t size) = 0;
    static Result<int32_t> option_int(const std::vector<uint8_t>& value);
    static std::vector<uint8_t> option_value(int32_t value);

  private:
    static int64_t timeout(const std::atomic<int64_t>& timeout_ns) {
        const int64_t ns = timeout_ns.load(std::memory_order_relaxed);
        return ns == 0 ? INT64_MAX : ns;
    }
    static Deadline deadline(const std::atomic<int64_t>& timeout_ns);

    const int domain_;
    const int type_;
    const int protocol_;
    const uint64_t ino_;
    // SO_RCVTIMEO and SO_SNDTIMEO; 0: none. Relaxed: no other data depends on them.
    std::atomic<int64_t> receive_timeout_ns_{0};
    std::atomic<int64_t> send_timeout_ns_{0};
};

/// socket(2); `type` without SOCK_NONBLOCK and SOCK_CLOEXEC, `flags` O_NONBLOCK or 0. EAFNOSUPPORT,
/// EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM.
Result<RefPtr<Socket>> make_socket(Task& task, int domain, int type, int protocol, uint32_t flags);

}  // namespace moat::kernel
