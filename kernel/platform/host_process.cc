#include "kernel/platform/host_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <unordered_map>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "kernel/platform/area.h"
#include "kernel/platform/cpu_hold.h"
#include "kernel/platform/kick_watch.h"
#include "kernel/platform/pool.h"
#include "stub_symbols.h"

namespace moat::platform {

namespace {

/// How long a guest may take to carry out what the sentry ordered, before its process is killed.
/// The stub needs microseconds; only a guest that was stopped from outside, or attacks, needs
/// longer.
constexpr int kOrderTimeoutMs = 5000;

HostProcess::DeathHandler death_handler = nullptr;
int death_epoll = -1;

/// How many threads share a listener, and so a worker, by fork. A command that soon execs needs
/// none of its own, which costs 60 us; the workers of a server live on and call at the same time.
constexpr size_t kMaxFamily = 2;

constexpr uint64_t after(uint64_t instruction) { return instruction + 2; }

int pidfd_open(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

bool same_call(const Notification& n, const Order& order) {
    return n.number == order.number && n.ip == after(MOAT_STUB_BATCH_INSTRUCTION) &&
           std::equal(std::begin(n.arguments), std::end(n.arguments), order.arguments);
}

/// A thread that no order made: it runs under our filter but nobody knows it.
void kill_stray(pid_t tid) {
    LOG(kWarning, "platform", "killing host process of unknown thread %d", tid);
    ::kill(tid, SIGKILL);
}

}  // namespace

bool is_event(const Notification& n) {
    return n.number == MOAT_EVENT && (n.ip == after(MOAT_STUB_EVENT_INSTRUCTION) ||
                                      n.ip == after(MOAT_STUB_START_INSTRUCTION));
}

// ---------------------------------------------------------------- threads

HostThread::HostThread(RefPtr<HostProcess> process, int slot, pid_t tid, RefPtr<Listener> listener)
    : process_(std::move(process)), slot_(slot), tid_(tid), listener_(std::move(listener)) {
    listener_->add(this);
}

HostThread::~HostThread() { listener_->remove(this); }

RefPtr<RefCounted> HostThread::owner() const {
    MutexLock lock(mu_);
    return owner_;
}

void HostThread::set_owner(RefPtr<RefCounted> owner) {
    MutexLock lock(mu_);
    std::swap(owner_, owner);
    lock.unlock();
}

volatile Slot& HostThread::slot() const { return process_->slot(slot_); }

void HostThread::load(const arch::Registers& registers, uint64_t fpstate) {
    volatile Slot& s = slot();
    memcpy(const_cast<arch::Registers*>(&s.registers), &registers, sizeof registers);
    s.fpstate = fpstate;
}

bool HostThread::copy_and_resume(uint64_t to, uint64_t from, uint64_t size) {
    const Order copy{MOAT_COPY, {to, from, size}};
    memcpy(const_cast<Order*>(&slot().orders[0]), &copy, sizeof copy);
    return listener_->reply(event_id, MOAT_COPY_AND_RESUME);
}

void HostThread::kick() {
    ::syscall(SYS_tgkill, process_->pid(), tid_, MOAT_KICK);
    if (!kick_unanswered_.exchange(true)) {
        watch_kick(RefPtr<HostThread>(this));
    }
}

void HostThread::write_orders(std::span<const Order> orders) {
    assert_no_locks_held("injecting a call");
    CHECK(orders.size() <= MOAT_ORDER_COUNT);
    memcpy(const_cast<Order*>(slot().orders), orders.data(), orders.size_bytes());
}

Result<int64_t> HostThread::run_orders(std::span<const Order> orders) {
    write_orders(orders);
    if (!listener_->reply(event_id, static_cast<int64_t>(orders.size()))) {
        return Errno(ESRCH);
    }
    return watch_orders(orders);
}

uint8_t HostThread::ending_direct_calls() const {
    return static_cast<uint8_t>(direct_calls_.load(std::memory_order_relaxed) &
                                ~process_->direct_calls());
}

void HostThread::end_direct_calls(uint8_t groups) {
    constexpr uint64_t kSetModeFilter = 1;
    const std::pair<uint8_t, uint64_t> programs[] = {
        {kMemoryCalls, MOAT_STUB_END_MEMORY_FILTER_PROGRAM},
        {kFutexCalls, MOAT_STUB_END_FUTEX_FILTER_PROGRAM},
    };
    for (const auto& [group, program] : programs) {
        if ((groups & direct_calls_ & group) == 0) {
            continue;
        }
        const Order order{SYS_seccomp, {kSetModeFilter, 0, program}};
        const auto result = run_orders(std::span(&order, 1));
        if (!result.ok()) {
            return;  // with its process
        }
        if (*result != 0) {
            LOG(kWarning, "platform",
                "host process %d: thread %d keeps its direct calls (seccomp: %s); killed",
                process_->pid(), tid_, strerror(static_cast<int>(-*result)));
            process_->kill();
            return;
        }
        direct_calls_.fetch_and(static_cast<uint8_t>(~group));
    }
}

bool HostThread::sleeps() const {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process_->pid(), tid_);
    const ScopedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    const ssize_t size = fd ? ::read(fd.get(), text, sizeof text - 1) : 0;
    if (size <= 0) {
        return false;
    }
    text[size] = '\0';
    const char* name_end = strrchr(text, ')');  // the state is the word behind the name
    return name_end != nullptr && name_end[1] == ' ' && name_end[2] == 'S';
}

Result<int64_t> HostThread::run_orders_with(int host_fd, std::span<const Order> orders) {
    write_orders(orders);
    slot().order_count = static_cast<uint32_t>(orders.size());
    const std::lock_guard<std::mutex> lending(process_->lending_mu_);
    TRY(listener_->lend_and_reply(event_id, host_fd, MOAT_LEND_FD));
    return watch_orders(orders);
}

// Watches the thread carry out orders that it was just told to run.
Result<int64_t> HostThread::watch_orders(std::span<const Order> orders) {
    size_t next = 0;
    for (;;) {
        const auto received = listener_->receive_fresh(kOrderTimeoutMs);
        if (!received.ok()) {
            if (received.error() == ETIMEDOUT && !process_->dead()) {
                LOG(kWarning, "platform", "host process %d does not carry out an order; killed",
                    process_->pid());
            }
            process_->kill();
            return Errno(ESRCH);
        }
        const Notification& n = *received;
        if (n.tid != tid_) {
            if (listener_->find(n.tid)) {
                listener_->set_aside(n);
            } else {
                kill_stray(n.tid);
            }
            continue;
        }
        if (is_event(n) && n.arguments[0] == MOAT_EV_BATCH) {
            event_id = n.id;
            return static_cast<int64_t>(n.arguments[1]);
        }
        while (next < orders.size() && orders[next].number == MOAT_COPY) {
            next++;  // done inside the stub, never seen here
        }
        if (next == orders.size() || !same_call(n, orders[next])) {
            LOG(kWarning, "platform",
                "host process %d: call %lu instead of the one ordered; killed", process_->pid(),
                static_cast<unsigned long>(n.number));
            process_->kill();
            return Errno(ESRCH);
        }
        next++;
        listener_->let_run(n.id);
    }
}

// ---------------------------------------------------------------- processes

HostProcess::HostProcess(pid_t pid, ScopedFd pidfd, ScopedFd area_fd, void* area, bool has_spawner)
    : pid_(pid),
      pidfd_(std::move(pidfd)),
      area_fd_(std::move(area_fd)),
      area_(area),
      has_spawner_(has_spawner) {}

HostProcess::~HostProcess() {
    kill();
    // Reaped only now: as long as somebody holds this object its pid names no other process.
    siginfo_t info;
    while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_.get()), &info,
                    WEXITED | __WALL) != 0 &&
           errno == EINTR) {
    }
    const size_t slot = used_slots_._Find_first() % MOAT_MAX_THREADS;
    give_back_area(Area{std::move(area_fd_), area_}, static_cast<int>(slot));
}

volatile AreaHeader& HostProcess::header() const { return *static_cast<AreaHeader*>(area_); }

volatile Slot& HostProcess::slot(int index) const {
    return *reinterpret_cast<Slot*>(static_cast<char*>(area_) + MOAT_HEADER_SIZE +
                                    (static_cast<size_t>(index) << MOAT_SLOT_SHIFT));
}

void HostProcess::kill() {
    if (!dead() && !killed_.exchange(true)) {
        ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    }
}

Result<int> HostProcess::take_slot() {
    MutexLock lock(mu_);
    for (int i = 0; i < MOAT_MAX_THREADS; i++) {
        if (!used_slots_[i]) {
            used_slots_.set(i);
            volatile Slot& s = slot(i);
            s.stack_base = signal_stack_base(i);
            s.stack_flags = 0;
            s.stack_size = uint64_t{1} << MOAT_ALT_SHIFT;
            return i;
        }
    }
    return Errno(EAGAIN);
}

void HostProcess::release_slot(int index) {
    MutexLock lock(mu_);
    used_slots_.reset(static_cast<size_t>(index));
}

RefPtr<HostThread> HostProcess::take_parked() {
    MutexLock lock(mu_);
    if (parked_.empty()) {
        return nullptr;
    }
    RefPtr<HostThread> thread = std::move(parked_.back());
    parked_.pop_back();
    return thread;
}

void HostProcess::park(RefPtr<HostThread> thread) {
    thread->set_owner(nullptr);
    MutexLock lock(mu_);
    if (!dead()) {
        parked_.push_back(std::move(thread));
    }
}

Result<RefPtr<HostThread>> HostProcess::order_thread() {
    const std::lock_guard<std::mutex> orders(spawner_mu_);
    const int index = TRY(take_slot());
    volatile AreaHeader& h = header();
    h.kind = MOAT_KIND_THREAD;
    h.slot = static_cast<uint32_t>(index);
    const uint32_t order = ++sequence_;
    post_order(h, order);
    TRY(wait_for_word(&h.done, order, *this));
    // What follows comes from memory that the guest can write. The descriptor may be any of its
    // own; only a listener answers RECV, and only one of this process' threads says START.
    const int64_t number = h.result;
    if (number < 0) {
        return Errno(EAGAIN);
    }
    ScopedFd fd(
        static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd_.get(), static_cast<int>(number), 0)));
    if (!fd) {
        return Errno(EAGAIN);
    }
    enable_sync_wake_up(fd.get());
    auto listener = make_ref<Listener>(std::move(fd));
    const Notification n = TRY(listener->receive_fresh(kOrderTimeoutMs));
    if (!is_event(n) || n.arguments[0] != MOAT_EV_START ||
        n.arguments[1] != static_cast<uint64_t>(index) ||
        ::syscall(SYS_tgkill, pid_, n.tid, 0) != 0) {
        LOG(kWarning, "platform", "host process %d: a new thread does not report; killed", pid_);
        kill();
        return Errno(ESRCH);
    }
    auto thread =
        make_ref<HostThread>(RefPtr<HostProcess>(this), index, n.tid, std::move(listener));
    thread->event_id = n.id;
    return thread;
}

Result<RefPtr<HostThread>> HostProcess::acquire_thread(HostThread& caller) {
    if (auto thread = take_parked()) {
        return thread;
    }
    if (has_spawner_) {
        return order_thread();
    }
    // A forked process has no spawner: the caller's own thread makes one that shares its listener.
    const int index = TRY(take_slot());
    Listener& listener = caller.listener();
    const Order clone_order{SYS_clone, {0x50f00}};
    caller.write_orders(std::span(&clone_order, 1));
    if (!listener.reply(caller.event_id, 1)) {
        return Errno(ESRCH);
    }
    const CloneResult made = TRY(watch_clone(caller, clone_order, MOAT_EV_CHILD));
    const Order stack_order{SYS_sigaltstack, {slot_address(index) + MOAT_S_STACK, 0}};
    auto thread =
        make_ref<HostThread>(RefPtr<HostProcess>(this), index, made.tid, caller.listener_ref());
    thread->direct_calls_.store(caller.direct_calls_);  // filters are inherited
    thread->write_orders(std::span(&stack_order, 1));
    listener.reply(made.event_id, MOAT_MOVE + index);
    TRY(thread->watch_orders(std::span(&stack_order, 1)));
    return thread;
}

// Watches `thread`, told to make one clone, do so; both parent and child end in an EVENT, the
// child's of kind `child_kind`.
Result<HostProcess::CloneResult> HostProcess::watch_clone(HostThread& thread, const Order& order,
                                                          uint64_t child_kind) {
    assert_no_locks_held("injecting a clone");
    Listener& listener = thread.listener();
    CloneResult made;
    bool parent_done = false;
    while (!parent_done || made.tid == 0) {
        const auto received = listener.receive_fresh(kOrderTimeoutMs);
        if (!received.ok()) {
            kill();
            return Errno(ESRCH);
        }
        const Notification& n = *received;
        if (n.tid == thread.tid()) {
            if (is_event(n) && n.arguments[0] == MOAT_EV_BATCH) {
                thread.event_id = n.id;
                const int64_t result = static_cast<int64_t>(n.arguments[1]);
                if (result < 0) {
                    return Errno(static_cast<int>(-result));
                }
                parent_done = true;
            } else if (same_call(n, order)) {
                listener.let_run(n.id);
            } else {
                kill();
                return Errno(ESRCH);
            }
        } else if (listener.find(n.tid)) {
            listener.set_aside(n);
        } else if (made.tid == 0 && is_event(n) && n.arguments[0] == child_kind) {
            made.tid = n.tid;  // from the host kernel, not from the guest's memory
            made.event_id = n.id;
            made.value = n.arguments[1];
        } else {
            kill_stray(n.tid);
        }
    }
    return made;
}

Result<RefPtr<HostProcess>> HostProcess::fork(HostThread& thread) {
    HostProcess& process = thread.process();
    if (!process.has_spawner_ || thread.listener().thread_count() < kMaxFamily) {
        return fork_by(thread);
    }
    // A thread of its own for the clone: the child inherits that thread's listener, and when the
    // thread has ended nobody else has it. (A listener of the child's own would be EBUSY until
    // every holder of the inherited one has closed it, seccomp(2).)
    const RefPtr<HostThread> spare = TRY(process.order_thread());
    auto child = fork_by(*spare);
    TRY(process.end_thread(spare));
    return child;
}

// Has a thread exit that sits in an EVENT and never ran guest code; the caller is its receiver.
Status HostProcess::end_thread(RefPtr<HostThread> thread) {
    const Order exit_order{SYS_exit, {0}};
    thread->write_orders(std::span(&exit_order, 1));
    Listener& listener = thread->listener();
    if (!listener.reply(thread->event_id, 1)) {
        return Errno(ESRCH);
    }
    for (;;) {
        const auto received = listener.receive_fresh(kOrderTimeoutMs);
        if (!received.ok() ||
            (received->tid == thread->tid() && !same_call(*received, exit_order))) {
            kill();
            return Errno(ESRCH);
        }
        if (received->tid == thread->tid()) {
            listener.let_run(received->id);
            break;
        }
        listener.set_aside(*received);
    }
    // The thread touches its slot no more.
    release_slot(thread->slot_index());
    return {};
}

// By the thread itself.
Result<RefPtr<HostProcess>> HostProcess::fork_by(HostThread& thread) {
    Area area = TRY(take_area());
    auto undo = Cleanup([&] { give_back_area(std::move(area), thread.slot_index()); });
    const CpuHold hold(thread.tid());
    // CLONE_PARENT | SIGCHLD: the child is the sentry's.
    const Order clone_order{SYS_clone, {0x8000 | SIGCHLD}};
    CloneResult made;
    {
        HostProcess& process = thread.process();
        const std::lock_guard<std::mutex> lending(process.lending_mu_);
        TRY(thread.listener().lend_and_reply(thread.event_id, area.fd.get(), MOAT_AREA_FD));
        made = TRY(process.watch_clone(thread, clone_order, MOAT_EV_FORKED));
    }

    ScopedFd pidfd(pidfd_open(made.tid));
    if (!pidfd) {
        kill_stray(made.tid);
        return Errno(EAGAIN);
    }
    undo.release();
    auto child = adopt_ref(new HostProcess(made.tid, std::move(pidfd), std::move(area.fd),
                                           area.address, /*has_spawner=*/false));
    if (made.value != MOAT_AREA_BASE) {
        return Errno(ENOMEM);  // the child dies with its object
    }
    child->direct_calls_.store(thread.process().direct_calls());
    const int index = thread.slot_index();
    child->used_slots_.set(static_cast<size_t>(index));
    volatile Slot& slot = child->slot(index);
    slot.stack_base = signal_stack_base(index);
    slot.stack_flags = 0;
    slot.stack_size = uint64_t{1} << MOAT_ALT_SHIFT;
    auto first = make_ref<HostThread>(child, index, made.tid, thread.listener_ref());
    first->event_id = made.event_id;
    first->direct_calls_.store(thread.direct_calls_);
    hold.release(made.tid);
    child->park(std::move(first));
    register_process(child);
    return child;
}

// ---------------------------------------------------------------- deaths

void HostProcess::set_death_handler(DeathHandler handler) { death_handler = handler; }

void HostProcess::register_process(RefPtr<HostProcess> process) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLONESHOT;
    const int pidfd = process->pidfd_.get();
    event.data.ptr = process.leak();  // the death watch's reference
    CHECK(::epoll_ctl(death_epoll, EPOLL_CTL_ADD, pidfd, &event) == 0);
}

void HostProcess::watch_deaths() {
    death_epoll = ::epoll_create1(EPOLL_CLOEXEC);
    CHECK(death_epoll >= 0);
    std::thread([] {
        for (;;) {
            epoll_event events[16];
            const int n = ::epoll_wait(death_epoll, events, 16, -1);
            for (int i = 0; i < n; i++) {
                auto process =
                    RefPtr<HostProcess>::adopt(static_cast<HostProcess*>(events[i].data.ptr));
                int status = SIGKILL;
                if (!process->killed_.load()) {
                    siginfo_t info{};
                    ::waitid(static_cast<idtype_t>(P_PIDFD),
                             static_cast<id_t>(process->pidfd_.get()), &info,
                             WEXITED | WNOWAIT | __WALL);
                    status =
                        info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status;
                }
                process->dead_.store(true, std::memory_order_release);
                {
                    std::vector<RefPtr<HostThread>> parked;  // dropped without the lock
                    MutexLock lock(process->mu_);
                    parked.swap(process->parked_);
                    lock.unlock();
                }
                if (death_handler != nullptr) {
                    death_handler(*process, status);
                }
            }
        }
    }).detach();
}

// ---------------------------------------------------------------- memory

size_t read_memory(const HostProcess& process, void* destination, uint64_t source, size_t size) {
    const iovec local{destination, size};
    const iovec remote{reinterpret_cast<void*>(source), size};
    const ssize_t n = ::process_vm_readv(process.pid(), &local, 1, &remote, 1, 0);
    return n < 0 ? 0 : static_cast<size_t>(n);
}

// Never by /proc/PID/mem: that ignores page protection (FOLL_FORCE), and a guest could have the
// sentry rewrite the stub's text for it.
size_t write_memory(const HostProcess& process, uint64_t destination, const void* source,
                    size_t size) {
    const iovec local{const_cast<void*>(source), size};
    const iovec remote{reinterpret_cast<void*>(destination), size};
    const ssize_t n = ::process_vm_writev(process.pid(), &local, 1, &remote, 1, 0);
    return n < 0 ? 0 : static_cast<size_t>(n);
}

}  // namespace moat::platform
