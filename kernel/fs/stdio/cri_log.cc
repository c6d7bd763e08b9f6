#include "kernel/fs/stdio/cri_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/fs/stdio/attachments.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

class CriLogFile final : public File {
  public:
    CriLogFile(RefPtr<CriLogSink> sink, CriLogSink::Stream stream, RefPtr<Attachments> attached)
        : File(O_WRONLY | O_APPEND),
          sink_(std::move(sink)),
          stream_(stream),
          attached_(std::move(attached)) {}
    ~CriLogFile() override { sink_->end(stream_); }

    // To the guest it is a pipe to its runtime, as with other runtimes.
    std::string anonymous_name() const override {
        return stream_ == CriLogSink::Stream::kStdout ? "pipe:[1]" : "pipe:[2]";
    }
    Result<struct stat> stat(Task&) override {
        struct stat s {};
        s.st_mode = S_IFIFO | 0600;
        s.st_nlink = 1;
        s.st_ino = stream_ == CriLogSink::Stream::kStdout ? 1 : 2;
        s.st_blksize = 4096;
        return s;
    }
    Result<size_t> write(Task&, IoBuffer& source) override {
        size_t total = 0;
        while (source.remaining() > 0) {
            char text[16 * 1024];
            const size_t room = std::min(attached_ ? attached_->room() : SIZE_MAX, sizeof text);
            if (room == 0) {
                return total > 0 ? Result<size_t>(total) : Errno(EAGAIN);
            }
            const auto taken = source.take(text, std::min(room, source.remaining()));
            if (!taken.ok()) {
                return total > 0 ? Result<size_t>(total) : taken;
            }
            sink_->write(stream_, {text, *taken});
            if (attached_) {
                attached_->write(stream_, {text, *taken});
            }
            total += *taken;
        }
        return total;
    }
    /// /proc/self/fd/1 and /dev/stdout lead here.
    Result<RefPtr<File>> reopen(Task&, uint32_t flags) override {
        if ((flags & O_ACCMODE) != O_WRONLY) {
            return Errno(EACCES);
        }
        return RefPtr<File>(this);
    }
    PollMask poll() override {
        return attached_ && attached_->room() == 0 ? 0u : EPOLLOUT | EPOLLWRNORM;
    }
    WaitQueue* wait_queue() override { return attached_ ? &attached_->queue() : nullptr; }
    bool can_epoll() override { return true; }

  private:
    const RefPtr<CriLogSink> sink_;
    const CriLogSink::Stream stream_;
    const RefPtr<Attachments> attached_;
};

}  // namespace

void CriLogSink::flush_locked(const std::string& text) {
    int error = 0;
    if (const size_t dropped = writer_.write(log_.get(), text, error); dropped > 0) {
        dropped_.fetch_add(dropped, std::memory_order_relaxed);
        LOG_ONCE(kWarning, "fs.stdio", "container log: %s; lines are dropped", strerror(error));
    }
}

void CriLogSink::write(Stream stream, std::string_view text) {
    MutexLock lock(mu_);
    flush_locked(lines_.add(stream, text));
}

void CriLogSink::end(Stream stream) {
    MutexLock lock(mu_);
    flush_locked(lines_.end(stream));
}

void CriLogSink::reopen(ScopedFd log) {
    MutexLock lock(mu_);
    writer_.leave(log_.get());
    std::swap(log_, log);
    lock.unlock();  // the old one is closed without the lock
}

RefPtr<File> make_cri_log_file(RefPtr<CriLogSink> sink, CriLogSink::Stream stream,
                               RefPtr<Attachments> attached) {
    return make_ref<CriLogFile>(std::move(sink), stream, std::move(attached));
}

}  // namespace moat::kernel
