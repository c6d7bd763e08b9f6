#include "kernel/fs/stdio/host_stream.h"

#include <limits.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>

#include "kernel/fs/file.h"
#include "kernel/net/host_poller.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

class HostStream final : public File {
  public:
    HostStream(ScopedFd host, RefPtr<HostWatch> watch, const struct stat& stat, uint32_t flags)
        : File(flags), host_(std::move(host)), watch_(std::move(watch)), mode_(stat.st_mode) {}
    ~HostStream() override {
        if (watch_) {
            watch_->stop();
        }
    }

    std::string anonymous_name() const override {
        return (S_ISSOCK(mode_) ? "socket:[" : "pipe:[") + std::to_string(number()) + "]";
    }

    // A ready descriptor does not block for one read, nor for a write of at most PIPE_BUF bytes.
    Result<size_t> read(Task&, IoBuffer& destination) override {
        if ((poll_host(host_.get()) & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
            return Errno(EAGAIN);
        }
        return destination.put_from_host(host_.get(), destination.remaining(), -1);
    }

    Result<size_t> write(Task&, IoBuffer& source) override {
        size_t total = 0;
        while (source.remaining() > 0) {
            if ((poll_host(host_.get()) & (EPOLLOUT | EPOLLHUP | EPOLLERR)) == 0) {
                return total > 0 ? Result<size_t>(total) : Errno(EAGAIN);
            }
            const auto n = source.take_to_host(host_.get(),
                                               std::min<size_t>(source.remaining(), PIPE_BUF), -1);
            if (!n.ok()) {
                return total > 0 ? Result<size_t>(total) : n;
            }
            if (*n == 0) {
                break;
            }
            total += *n;
        }
        return total;
    }

    Result<struct stat> stat(Task&) override {
        struct stat s {};
        // A host terminal or device is shown as a pipe: it cannot be used as what it is.
        s.st_mode = (S_ISSOCK(mode_) ? S_IFSOCK : S_IFIFO) | 0600;
        s.st_nlink = 1;
        s.st_ino = number();
        s.st_blksize = 4096;
        return s;
    }

    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override {
        if (command == FIONREAD) {
            int n = 0;
            TRY(host_result(::ioctl(host_.get(), FIONREAD, &n)));
            TRY(task.copy_out(UserPtr<int32_t>(argument), n));
            return 0;
        }
        return Errno(ENOTTY);
    }

    Result<RefPtr<File>> reopen(Task&, uint32_t flags) override {
        const uint32_t wanted = flags & 3;
        if ((wanted != 1 && !readable()) || (wanted != 0 && !writable())) {
            return Errno(EACCES);
        }
        return RefPtr<File>(this);
    }

    PollMask poll() override {
        PollMask ready = poll_host(host_.get());
        if (!readable()) {
            ready &= ~static_cast<PollMask>(EPOLLIN | EPOLLRDNORM);
        }
        if (!writable()) {
            ready &= ~static_cast<PollMask>(EPOLLOUT | EPOLLWRNORM);
        }
        return ready;
    }
    WaitQueue* wait_queue() override { return watch_ ? &watch_->queue() : nullptr; }

  private:
    /// Some number that differs between streams and tells nothing of the host's.
    uint64_t number() const { return 1000 + static_cast<uint64_t>(host_.get()); }

    const ScopedFd host_;
    const RefPtr<HostWatch> watch_;  // null: a regular file, always ready
    const mode_t mode_;
};

}  // namespace

Result<RefPtr<File>> make_host_stream(ScopedFd host, uint32_t flags) {
    struct stat s {};
    TRY(host_result(fstat(host.get(), &s)));
    RefPtr<HostWatch> watch;
    if (auto started = HostWatch::start(host.get()); started.ok()) {
        watch = std::move(*started);
    } else if (!(started.error() == EPERM)) {
        return started.error();
    }
    return RefPtr<File>(make_ref<HostStream>(std::move(host), std::move(watch), s, flags));
}

}  // namespace moat::kernel
