#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "kernel/fs/epoll/poll_mask.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/io_common.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task_signals.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

// The one allocation whose size a guest chooses here; a process that raises RLIMIT_NOFILE beyond
// this still cannot poll more at once.
constexpr uint32_t kMaxPolled = 1 << 20;

// ---------------------------------------------------------------- poll

/// One poll(2) under way: owned by its continuation.
struct PollCall {
    UserPtr<pollfd> user;
    std::vector<pollfd> fds;
    std::vector<RefPtr<File>> files;  // null: a negative number, or not open

    /// Fills in what is ready; how many are.
    int64_t look() {
        int64_t ready = 0;
        for (size_t i = 0; i < fds.size(); i++) {
            pollfd& p = fds[i];
            if (files[i]) {
                const auto wanted = static_cast<uint16_t>(p.events);
                p.revents =
                    static_cast<int16_t>(ready_mask(*files[i]) & (wanted | POLLERR | POLLHUP));
            } else {
                p.revents = p.fd < 0 ? 0 : POLLNVAL;
            }
            ready += p.revents != 0 ? 1 : 0;
        }
        return ready;
    }
    Status copy_out(Task& task) {
        return task.copy_out_bytes(user.address(), fds.data(), fds.size() * sizeof(pollfd));
    }
    std::vector<WaitSource> sources() {
        std::vector<WaitSource> result;
        for (size_t i = 0; i < fds.size(); i++) {
            WaitQueue* const queue = files[i] ? files[i]->wait_queue() : nullptr;
            if (queue != nullptr) {
                result.push_back({queue, wake_mask(static_cast<uint16_t>(fds[i].events))});
            }
        }
        return result;
    }
};

/// `finish` is told what the call gives, and gives what the guest gets: ppoll(2) writes back the
/// time.
template <typename Finish>
Result<int64_t> do_poll(Task& task, UserPtr<pollfd> user, uint32_t count, Timeout timeout,
                        Finish finish) {
    if (count > task.rlimit(RLIMIT_NOFILE) || count > kMaxPolled) {
        return Errno(EINVAL);
    }
    auto call = std::make_shared<PollCall>();
    call->user = user;
    call->fds = TRY(task.copy_in_array(user.cast<const pollfd>(), count));
    call->files.reserve(count);
    for (const pollfd& p : call->fds) {
        Result<RefPtr<File>> file =
            p.fd < 0 ? Result<RefPtr<File>>(RefPtr<File>()) : task.fds().get(Fd{p.fd});
        call->files.push_back(file.ok() ? std::move(*file) : nullptr);
    }
    const int64_t ready = call->look();
    if (ready > 0 || timeout.is_zero) {
        TRY(call->copy_out(task));
        return finish(task, Result<int64_t>(ready));
    }
    std::vector<WaitSource> sources = call->sources();
    return block(task, std::move(sources), timeout.deadline,
                 [call, finish](Task& self, Wake wake) -> Result<int64_t> {
                     const int64_t found = call->look();
                     if (found == 0 && wake == Wake::kReady) {
                         return kBlocked;
                     }
                     TRY(call->copy_out(self));
                     if (found == 0 && wake == Wake::kInterrupted) {
                         return finish(self, Result<int64_t>(kRestartNoHand));
                     }
                     return finish(self, Result<int64_t>(found));
                 });
}

/// Writes what is left of `timeout` to `user`; a call that was to be restarted is not if that
/// fails, as it would start over with the whole time (Linux: poll_select_finish).
template <typename T>
Result<int64_t> with_remaining(Task& task, UserPtr<T> user, const Timeout& timeout,
                               Result<int64_t> result) {
    if (!user) {
        return result;
    }
    const timespec left = timeout.remaining();
    T value{};
    if constexpr (std::is_same_v<T, timeval>) {
        value = {left.tv_sec, left.tv_nsec / 1000};
    } else {
        value = left;
    }
    if (!task.copy_out(user, value).ok() && !result.ok() && result.error() == kRestartNoHand) {
        return Errno(EINTR);
    }
    return result;
}

// ---------------------------------------------------------------- select

constexpr PollMask kReadSet = EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR;
constexpr PollMask kWriteSet = EPOLLWRNORM | EPOLLWRBAND | EPOLLOUT | EPOLLERR;
constexpr PollMask kExceptSet = EPOLLPRI;
constexpr PollMask kSetMasks[3] = {kReadSet, kWriteSet, kExceptSet};

/// One select(2) under way.
struct SelectCall {
    struct Watched {
        size_t number;
        PollMask wanted;
        RefPtr<File> file;
    };
    UserPtr<uint64_t> user[3];
    size_t words = 0;
    std::vector<Watched> watched;
    std::vector<uint64_t> results[3];

    Status copy_in(Task& task, size_t count) {
        words = (count + 63) / 64;
        std::vector<uint64_t> wanted[3];
        for (int s = 0; s < 3; s++) {
            if (user[s]) {
                wanted[s] = TRY(task.copy_in_array(user[s].cast<const uint64_t>(), words));
            } else {
                wanted[s].assign(words, 0);
            }
        }
        for (size_t w = 0; w < words; w++) {
            uint64_t any = wanted[0][w] | wanted[1][w] | wanted[2][w];
            while (any != 0) {
                const auto bit = static_cast<size_t>(std::countr_zero(any));
                any &= any - 1;
                const size_t number = w * 64 + bit;
                if (number >= count) {
                    break;
                }
                PollMask mask = 0;
                for (int s = 0; s < 3; s++) {
                    mask |= (wanted[s][w] >> bit & 1) != 0 ? kSetMasks[s] | kWantsSet[s] : 0;
                }
                watched.push_back({number, mask, TRY(task.fds().get(Fd(number)))});
            }
        }
        return {};
    }
    int64_t look() {
        int64_t ready = 0;
        for (auto& set : results) {
            set.assign(words, 0);
        }
        for (const Watched& w : watched) {
            const PollMask now = ready_mask(*w.file);
            for (int s = 0; s < 3; s++) {
                if ((w.wanted & kWantsSet[s]) != 0 && (now & kSetMasks[s]) != 0) {
                    results[s][w.number / 64] |= 1ull << (w.number % 64);
                    ready++;
                }
            }
        }
        return ready;
    }
    Status copy_out(Task& task) {
        for (int s = 0; s < 3; s++) {
            if (user[s]) {
                TRY(task.copy_out_bytes(user[s].address(), results[s].data(), words * 8));
            }
        }
        return {};
    }
    std::vector<WaitSource> sources() {
        std::vector<WaitSource> result;
        for (const Watched& w : watched) {
            if (WaitQueue* const queue = w.file->wait_queue()) {
                result.push_back({queue, wake_mask(w.wanted & ~kAnyWants)});
            }
        }
        return result;
    }

    // Bits of Watched::wanted that no file uses: in which of the sets the number was.
    static constexpr PollMask kWantsSet[3] = {1u << 24, 1u << 25, 1u << 26};
    static constexpr PollMask kAnyWants = 7u << 24;
};

/// Numbers from here on are not looked at (Linux: fdtable.max_fds, which grows by powers of two).
size_t select_limit(Task& task) {
    const std::vector<Fd> open = task.fds().numbers();
    const size_t highest = open.empty() ? 0 : static_cast<size_t>(to_integer(open.back()));
    return highest < 64 ? 64 : std::max<size_t>(256, std::bit_ceil(highest + 1));
}

template <typename Finish>
Result<int64_t> do_select(Task& task, int count, UserPtr<uint64_t> read, UserPtr<uint64_t> write,
                          UserPtr<uint64_t> except, Timeout timeout, Finish finish) {
    if (count < 0) {
        return Errno(EINVAL);
    }
    auto call = std::make_shared<SelectCall>();
    call->user[0] = read;
    call->user[1] = write;
    call->user[2] = except;
    TRY(call->copy_in(task, std::min(static_cast<size_t>(count), select_limit(task))));
    const int64_t ready = call->look();
    if (ready > 0 || timeout.is_zero) {
        TRY(call->copy_out(task));
        return finish(task, Result<int64_t>(ready));
    }
    std::vector<WaitSource> sources = call->sources();
    return block(task, std::move(sources), timeout.deadline,
                 [call, finish](Task& self, Wake wake) -> Result<int64_t> {
                     const int64_t found = call->look();
                     if (found == 0 && wake == Wake::kReady) {
                         return kBlocked;
                     }
                     if (found == 0 && wake == Wake::kInterrupted) {
                         return finish(self, Result<int64_t>(kRestartNoHand));
                     }
                     TRY(call->copy_out(self));
                     return finish(self, Result<int64_t>(found));
                 });
}

}  // namespace

Result<int64_t> sys_poll(Task& task, UserPtr<pollfd> fds, uint32_t count, int timeout_ms) {
    Timeout limit = Timeout::from_ms(timeout_ms);
    if (const auto resumed = task.resumed_deadline()) {
        limit.deadline = *resumed;
    }
    return do_poll(task, fds, count, limit, [](Task&, Result<int64_t> result) { return result; });
}

Result<int64_t> sys_ppoll(Task& task, UserPtr<pollfd> fds, uint32_t count,
                          UserPtr<timespec> timeout, UserPtr<const uint64_t> mask,
                          size_t mask_size) {
    const Timeout limit = TRY(Timeout::copy_in(task, timeout.cast<const timespec>()));
    TRY(set_temporary_mask(task, mask, mask_size));
    return do_poll(task, fds, count, limit, [timeout, limit](Task& self, Result<int64_t> result) {
        return with_remaining(self, timeout, limit, result);
    });
}

Result<int64_t> sys_select(Task& task, int count, UserPtr<uint64_t> read, UserPtr<uint64_t> write,
                           UserPtr<uint64_t> except, UserPtr<timeval> timeout) {
    Timeout limit;
    if (timeout) {
        const timeval wanted = TRY(task.copy_in(timeout.cast<const timeval>()));
        // Microseconds beyond a second are carried over (Linux: kern_select).
        if (wanted.tv_sec < 0 || wanted.tv_usec < 0) {
            return Errno(EINVAL);
        }
        limit = Timeout::relative({add_saturating(wanted.tv_sec, wanted.tv_usec / 1'000'000),
                                   wanted.tv_usec % 1'000'000 * 1000});
    }
    return do_select(task, count, read, write, except, limit,
                     [timeout, limit](Task& self, Result<int64_t> result) {
                         return with_remaining(self, timeout, limit, result);
                     });
}

Result<int64_t> sys_pselect6(Task& task, int count, UserPtr<uint64_t> read, UserPtr<uint64_t> write,
                             UserPtr<uint64_t> except, UserPtr<timespec> timeout,
                             UserPtr<const SelectMask> mask) {
    SelectMask wanted{};
    if (mask) {
        wanted = TRY(task.copy_in(mask));
    }
    const Timeout limit = TRY(Timeout::copy_in(task, timeout.cast<const timespec>()));
    TRY(set_temporary_mask(task, UserPtr<const uint64_t>(wanted.mask), wanted.size));
    return do_select(task, count, read, write, except, limit,
                     [timeout, limit](Task& self, Result<int64_t> result) {
                         return with_remaining(self, timeout, limit, result);
                     });
}

}  // namespace moat::kernel
