#include "kernel/fs/dev/kernel_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <deque>

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

constexpr size_t kLongestMessage = 900;

struct KernelLog {
    const int64_t start_ns = monotonic_ns();
    Mutex<LockRank::kCounters> mu;
    std::deque<KernelMessage> messages GUARDED_BY(mu);
    size_t bytes GUARDED_BY(mu) = 0;
    uint64_t next GUARDED_BY(mu) = 0;
    WaitQueue events;
};

KernelLog& the_log() {
    static KernelLog* const instance = new KernelLog;
    return *instance;
}

class KmsgFile final : public File {
  public:
    explicit KmsgFile(uint32_t flags) : File(flags), next_(kernel_log_oldest()) {}

    std::string anonymous_name() const override { return "/dev/kmsg"; }

    /// One record a read; EPIPE once when records were lost, EINVAL when it does not fit
    /// (Documentation/ABI/testing/dev-kmsg).
    Result<size_t> read(Task&, IoBuffer& destination) override {
        uint64_t wanted;
        {
            MutexLock lock(mu_);
            wanted = next_;
        }
        const auto message = kernel_log_at(wanted);
        if (!message) {
            return Errno(EAGAIN);
        }
        {
            MutexLock lock(mu_);
            if (message->sequence != wanted) {
                next_ = message->sequence;
                return Errno(EPIPE);
            }
            next_ = wanted + 1;
        }
        const std::string text = message->as_kmsg();
        if (text.size() > destination.remaining()) {
            return Errno(EINVAL);
        }
        return destination.put(text.data(), text.size());
    }

    Result<size_t> write(Task&, IoBuffer& source) override {
        if (source.remaining() > 1024) {
            return Errno(EINVAL);
        }
        char text[1024];
        const size_t n = TRY(source.take(text, source.remaining()));
        std::string_view line(text, n);
        uint8_t priority = 1 << 3 | 4;  // LOG_USER, the default level
        if (line.size() > 2 && line[0] == '<') {
            const size_t end = line.find('>');
            const auto given = end == std::string_view::npos
                                   ? std::nullopt
                                   : parse_number(line.substr(1, end - 1));
            if (given && *given >= 0 && *given < 256) {
                // Nobody but the kernel writes as the kernel (facility 0).
                priority = static_cast<uint8_t>(*given < 8 ? (*given | 1 << 3) : *given);
                line.remove_prefix(end + 1);
            }
        }
        while (!line.empty() && line.back() == '\n') {
            line.remove_suffix(1);
        }
        kernel_log_text(priority, std::string(line));
        return n;
    }

    Result<int64_t> seek(Task&, int64_t offset, int whence) override {
        if (offset != 0) {
            return Errno(ESPIPE);
        }
        MutexLock lock(mu_);
        if (whence == SEEK_SET || whence == SEEK_DATA) {
            next_ = kernel_log_oldest();
        } else if (whence == SEEK_END) {
            next_ = kernel_log_next();
        } else {
            return Errno(EINVAL);
        }
        return 0;
    }

    PollMask poll() override {
        MutexLock lock(mu_);
        return next_ < kernel_log_next() ? EPOLLIN | EPOLLRDNORM : 0u;
    }
    WaitQueue* wait_queue() override { return &kernel_log_events(); }

  private:
    Mutex<LockRank::kFilePosition> mu_;
    uint64_t next_ GUARDED_BY(mu_);
};

}  // namespace

std::string KernelMessage::as_syslog() const {
    return format_text("<%u>[%5lld.%06lld] %s\n", priority,
                       static_cast<long long>(uptime_us / 1000000),
                       static_cast<long long>(uptime_us % 1000000), text.c_str());
}

std::string KernelMessage::as_kmsg() const {
    return format_text("%u,%llu,%lld,-;%s\n", priority, static_cast<unsigned long long>(sequence),
                       static_cast<long long>(uptime_us), text.c_str());
}

void kernel_log_text(uint8_t priority, std::string text) {
    text.resize(std::min(text.size(), kLongestMessage));
    for (char& c : text) {
        // A line stays a line, whatever a guest writes to /dev/kmsg.
        if (static_cast<unsigned char>(c) < 32 && c != '\t') {
            c = ' ';
        }
    }
    KernelLog& log = the_log();
    MutexLock lock(log.mu);
    log.bytes += text.size() + sizeof(KernelMessage);
    log.messages.push_back(
        {log.next++, priority, (monotonic_ns() - log.start_ns) / 1000, std::move(text)});
    while (log.bytes > kKernelLogBytes) {
        log.bytes -= log.messages.front().text.size() + sizeof(KernelMessage);
        log.messages.pop_front();
    }
    lock.unlock();
    log.events.notify(EPOLLIN | EPOLLRDNORM);
}

void kernel_log(const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    kernel_log_text(6, text);
}

std::optional<KernelMessage> kernel_log_at(uint64_t sequence) {
    KernelLog& log = the_log();
    MutexLock lock(log.mu);
    if (sequence >= log.next || log.messages.empty()) {
        return std::nullopt;
    }
    const uint64_t oldest = log.messages.front().sequence;
    return log.messages[sequence <= oldest ? 0 : sequence - oldest];
}

uint64_t kernel_log_oldest() {
    KernelLog& log = the_log();
    MutexLock lock(log.mu);
    return log.messages.empty() ? log.next : log.messages.front().sequence;
}

uint64_t kernel_log_next() {
    KernelLog& log = the_log();
    MutexLock lock(log.mu);
    return log.next;
}

WaitQueue& kernel_log_events() { return the_log().events; }

RefPtr<File> make_kmsg_file(uint32_t flags) { return make_ref<KmsgFile>(flags); }

}  // namespace moat::kernel
