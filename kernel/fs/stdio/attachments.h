#pragma once

// A container's standard streams as somebody sees them who attaches (kubectl attach): output goes
// to him besides the log, input comes from him. moatd may die; what is attached lives in
// descriptors.

#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/file.h"
#include "kernel/fs/stdio/cri_log.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/net/host_poller.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

/// Where the input of those who are attached goes.
class AttachedSink : public RefCounted {
  public:
    /// How much put() takes now. put() with more than that is a mistake.
    virtual size_t room() = 0;
    virtual void put(std::string_view bytes) = 0;
    /// Somebody's input has ended.
    virtual void end() = 0;
    /// Told with EPOLLOUT when there is room again.
    virtual WaitQueue& room_queue() = 0;
};

/// Stdin that attached people type into; a pipe to the guest.
class AttachedInput final : public AttachedSink {
  public:
    enum class Once : bool {
        kNo,   ///< never an end of file
        kYes,  ///< the first end of an input is end of file, for good
    };
    static constexpr size_t kCapacity = 65536;

    explicit AttachedInput(Once once) : once_(once) {}
    size_t room() override;
    void put(std::string_view bytes) override;
    void end() override;
    WaitQueue& room_queue() override { return queue_; }

    // For the file that the guest reads. EAGAIN: nothing yet.
    Result<size_t> read(IoBuffer& destination);
    size_t size();
    PollMask poll();

  private:
    const Once once_;
    Mutex<LockRank::kTty> mu_;  // where a terminal has its own: taken under that of Attachments
    std::string bytes_ GUARDED_BY(mu_);
    bool ended_ GUARDED_BY(mu_) = false;
    WaitQueue queue_;
};
RefPtr<File> make_attached_input_file(RefPtr<AttachedInput> input);

/// What people type at a terminal; the end of their input is theirs alone.
RefPtr<AttachedSink> make_terminal_sink(RefPtr<Tty> tty);

/// Everybody who is attached to one container. Writers look at room() first: output is held for one
/// who does not read, and then its writer waits, but no longer than kPatience after the last byte
/// that he took; then he is cut off.
class Attachments final : public RefCounted {
  public:
    static constexpr size_t kBuffer = 64 << 10;  ///< for each stream of each attachment
    static constexpr size_t kMost = 64;          ///< attached at once
    static constexpr int64_t kPatienceNs = 10'000'000'000;

    /// `sink`: null for a container without input. `patience_ns` is for tests.
    explicit Attachments(RefPtr<AttachedSink> sink, int64_t patience_ns = kPatienceNs);
    ~Attachments() override;

    /// Any may be missing. EINVAL: input for a container that takes none; EPERM: cannot be polled;
    /// ESRCH: the container has ended; EUSERS: kMost are attached.
    Status attach(ScopedFd in, ScopedFd out, ScopedFd err);
    /// The least that somebody's buffer takes; SIZE_MAX with nobody attached. 0 starts the clock of
    /// those who are full.
    size_t room();
    void write(CriLogSink::Stream stream, std::string_view text);
    /// The container has ended: what is held is still delivered, then the descriptors are closed.
    void finish();
    /// Told with EPOLLOUT when room() may have grown.
    WaitQueue& queue() { return queue_; }
    size_t count();

  private:
    class Attachment;
    void serve(Attachment& attachment);
    void detach_locked(Attachment& attachment) REQUIRES(mu_);
    void out_of_patience(uint64_t number, uint64_t taken);

    const RefPtr<AttachedSink> sink_;
    const int64_t patience_ns_;
    Mutex<LockRank::kEventFile> mu_;  // taken under a HostConsole's, before the sink's
    std::vector<RefPtr<Attachment>> attached_ GUARDED_BY(mu_);
    uint64_t last_number_ GUARDED_BY(mu_) = 0;
    bool finishing_ GUARDED_BY(mu_) = false;
    WaitQueue queue_;
};

}  // namespace moat::kernel
