#pragma once

// Pseudo-terminals: a Tty is the pair's common core. Programs hold the near side through TtyFile,
// the far side is a PtyMasterFile (a guest's terminal emulator, sshd, script) or a HostConsole.

#include <sys/ioctl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"
#include "kernel/fs/tty/line_discipline.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

inline constexpr uint32_t kTtyAuxMajor = 5;  // tty, console, ptmx
inline constexpr uint32_t kPtySlaveMajor = 136;
inline constexpr uint64_t kFirstPtyIno = 3;  // of /dev/pts/0, as Linux numbers them

/// A terminal (Linux: a pty's two tty_structs in one). Shared by its files, its devpts entry and
/// the session it controls. Lock order: mu_ (kTty) before the task table's.
class Tty final : public RefCounted {
  public:
    /// `index` is the N of /dev/pts/N. `gone` is called once, without locks, when the far side has
    /// hung up: the name goes then. `device` is that of the devpts it has its name in.
    Tty(uint32_t index, uint64_t device, std::function<void()> gone);
    ~Tty() override;

    uint32_t index() const { return index_; }
    uint64_t device() const { return device_; }
    uint64_t rdev() const;
    std::string name() const;  ///< "/dev/pts/0"

    // ------------------------------------------------------------ near side
    /// A new description of the near side: refuses with EIO while locked (TIOCSPTLCK) or hung up,
    /// and makes this the controlling terminal where open(2) says so (O_NOCTTY).
    Result<RefPtr<File>> open_near(Task& task, uint32_t flags);
    Result<size_t> read(Task& task, IoBuffer& destination, bool nonblocking);
    Result<size_t> write(Task& task, IoBuffer& source);
    PollMask near_poll();
    WaitQueue& near_events() { return near_events_; }

    // ------------------------------------------------------------ far side
    Result<size_t> far_read(IoBuffer& destination);
    Result<size_t> far_write(IoBuffer& source);
    PollMask far_poll();
    WaitQueue& far_events() { return far_events_; }
    /// As far_read/far_write for the sentry itself: 0 when there is nothing or no room. far_take()
    /// gives EIO once every near side is closed and all output was taken.
    Result<size_t> far_take(char* to, size_t size);
    size_t far_room();
    void far_put(std::string_view typed);
    /// TIOCPKT and TIOCSIG, for the far side only.
    void set_packet_mode(bool on);
    bool packet_mode();
    Status signal_foreground(int signal);
    bool locked();
    /// The far side is gone: readers see the end of the file, writers EIO, the session its SIGHUP.
    void hang_up();

    // ------------------------------------------------------------ both
    enum class Side : uint8_t { kNear, kFar };
    Result<int64_t> ioctl(Task& task, Side side, uint32_t command, uint64_t argument);
    void set_locked(bool locked);
    void set_window_size(const winsize& size);
    winsize window_size();

    // ------------------------------------------------------------ sessions
    /// TIOCSCTTY. `steal`: CAP_SYS_ADMIN takes it from another session.
    Status make_controlling(Task& task, bool steal);
    /// What the task table has to call, with no lock held, when a session's leader exits: the
    /// foreground group gets SIGHUP and SIGCONT, the session loses its terminal.
    static void leader_exited(Session& session);
    /// The terminal of `task`'s session; null: none.
    static RefPtr<Tty> controlling(Task& task);

  private:
    friend class TtyFile;
    void near_closed();
    /// SIGTTIN/SIGTTOU for members of background groups (Linux: __tty_check_change).
    Status check_foreground(Task& task, int signal);
    Result<size_t> take_input_locked(char* to, size_t size, bool nonblocking) REQUIRES(mu_);
    void arm_read_timer_locked(int64_t deadline_ns) REQUIRES(mu_);
    RefPtr<ProcessGroup> foreground_locked() REQUIRES(mu_);
    Result<int64_t> set_attributes(Task& task, uint64_t argument, size_t size, bool flush);
    Result<int64_t> session_ioctl(Task& task, Side side, uint32_t command, uint64_t argument);
    void flush(int queue);
    void flow(int action);
    /// Tells the far side's packet mode (TIOCPKT) of an event.
    void note_packet_locked(uint8_t event) REQUIRES(mu_);

    const uint32_t index_;
    const uint64_t device_;
    std::function<void()> gone_ GUARDED_BY(mu_);
    Mutex<LockRank::kTty> mu_;
    LineDiscipline discipline_ GUARDED_BY(mu_);
    winsize window_ GUARDED_BY(mu_){};
    RefPtr<Session> session_ GUARDED_BY(mu_);  // whose controlling terminal this is
    uint32_t near_files_ GUARDED_BY(mu_) = 0;
    bool near_was_open_ GUARDED_BY(mu_) = false;
    bool hung_up_ GUARDED_BY(mu_) = false;
    bool locked_ GUARDED_BY(mu_) = false;
    bool exclusive_ GUARDED_BY(mu_) = false;
    bool packet_mode_ GUARDED_BY(mu_) = false;
    uint8_t packet_event_ GUARDED_BY(mu_) = 0;
    // VTIME of a read that waits
    uint64_t timer_ GUARDED_BY(mu_) = 0;
    int64_t last_input_ns_ GUARDED_BY(mu_) = 0;
    bool read_timed_out_ GUARDED_BY(mu_) = false;

    WaitQueue near_events_;
    WaitQueue far_events_;
};

/// The far side in a guest's hands. Closing the last description hangs up.
class PtyMasterFile final : public File {
  public:
    PtyMasterFile(uint32_t flags, RefPtr<Tty> tty) : File(flags), tty_(std::move(tty)) {}
    ~PtyMasterFile() override { tty_->hang_up(); }
    Tty& tty() const { return *tty_; }

    std::string anonymous_name() const override { return "/dev/ptmx"; }
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<size_t> write(Task& task, IoBuffer& source) override;
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;
    PollMask poll() override { return tty_->far_poll(); }
    WaitQueue* wait_queue() override { return &tty_->far_events(); }

  private:
    Result<int64_t> open_peer(Task& task, uint32_t flags);

    const RefPtr<Tty> tty_;
};

/// One description of the near side.
class TtyFile final : public File {
  public:
    TtyFile(uint32_t flags, RefPtr<Tty> tty) : File(flags), tty_(std::move(tty)) {}
    ~TtyFile() override { tty_->near_closed(); }
    Tty& tty() const { return *tty_; }

    std::string anonymous_name() const override { return tty_->name(); }
    Result<size_t> read(Task& task, IoBuffer& destination) override {
        return tty_->read(task, destination, nonblocking());
    }
    Result<size_t> write(Task& task, IoBuffer& source) override {
        return tty_->write(task, source);
    }
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override {
        return tty_->ioctl(task, Tty::Side::kNear, command, argument);
    }
    Result<struct stat> stat(Task& task) override;
    Result<RefPtr<File>> reopen(Task& task, uint32_t flags) override {
        return tty_->open_near(task, flags);
    }
    PollMask poll() override { return tty_->near_poll(); }
    WaitQueue* wait_queue() override { return &tty_->near_events(); }

  private:
    const RefPtr<Tty> tty_;
};

}  // namespace moat::kernel
