#include "kernel/fs/fd_table.h"

#include "kernel/fs/dentry.h"

namespace moat::kernel {

namespace {
/// fs.nr_open: no limit of a process may be beyond it.
constexpr uint64_t kMaxDescriptors = 1 << 20;
}  // namespace

FdReservation::FdReservation(RefPtr<FdTable> table, size_t slot)
    : table_(std::move(table)), slot_(slot) {}

FdReservation::FdReservation(FdReservation&& other) noexcept
    : table_(std::move(other.table_)), slot_(other.slot_) {}

FdReservation::~FdReservation() {
    if (!table_) {
        return;
    }
    MutexLock lock(table_->mu_);
    if (slot_ < table_->slots_.size()) {  // else execve or the end of the process took all
        table_->slots_[slot_].reserved = false;
        table_->first_free_ = std::min(table_->first_free_, slot_);
    }
}

Fd FdReservation::install(RefPtr<File> file, CloseOnExec cloexec) && {
    const RefPtr<FdTable> table = std::move(table_);
    MutexLock lock(table->mu_);
    if (slot_ < table->slots_.size()) {
        table->slots_[slot_] = {std::move(file), cloexec};
    }
    lock.unlock();
    return Fd{static_cast<int32_t>(slot_)};
}

FdTable::~FdTable() = default;

RefPtr<FdTable> FdTable::clone() const {
    auto copy = make_ref<FdTable>();
    MutexLock lock(mu_);
    copy->slots_ = slots_;
    copy->first_free_ = first_free_;
    lock.unlock();
    MutexLock copy_lock(copy->mu_);
    for (size_t i = 0; i < copy->slots_.size(); i++) {
        if (std::exchange(copy->slots_[i].reserved,
                          false)) {  // a call of this process is under way
            copy->first_free_ = std::min(copy->first_free_, i);
        }
    }
    copy_lock.unlock();
    return copy;
}

Result<RefPtr<File>> FdTable::get(Fd fd) const {
    const auto i = static_cast<uint32_t>(to_integer(fd));  // negative: beyond any size
    MutexLock lock(mu_);
    if (i >= slots_.size() || !slots_[i].file) {
        return Errno(EBADF);
    }
    return slots_[i].file;
}

Result<size_t> FdTable::find_free_locked(size_t lowest, uint64_t limit) {
    limit = std::min(limit, kMaxDescriptors);
    size_t i = std::max(lowest, first_free_);
    while (i < slots_.size() && !slots_[i].is_free()) {
        i++;
    }
    if (i >= limit) {
        return Errno(EMFILE);
    }
    if (lowest <= first_free_) {
        first_free_ = i;
    }
    if (i >= slots_.size()) {
        slots_.resize(i + 1);
    }
    return i;
}

Result<Fd> FdTable::install(RefPtr<File> file, CloseOnExec cloexec, uint64_t limit,
                            int32_t lowest) {
    if (lowest < 0 || static_cast<uint64_t>(lowest) >= limit) {
        return Errno(EINVAL);  // fcntl(2): F_DUPFD beyond the limit
    }
    MutexLock lock(mu_);
    auto slot = find_free_locked(static_cast<size_t>(lowest), limit);
    if (!slot.ok()) {
        lock.unlock();  // the file may go now
        return slot.error();
    }
    slots_[*slot] = {std::move(file), cloexec};
    return Fd{static_cast<int32_t>(*slot)};
}

Result<FdReservation> FdTable::reserve(uint64_t limit) {
    MutexLock lock(mu_);
    const size_t slot = TRY(find_free_locked(0, limit));
    slots_[slot].reserved = true;
    lock.unlock();
    return FdReservation(RefPtr<FdTable>(this), slot);
}

Result<std::pair<Fd, Fd>> FdTable::install_pair(RefPtr<File> first, RefPtr<File> second,
                                                CloseOnExec cloexec, uint64_t limit) {
    MutexLock lock(mu_);
    auto a = find_free_locked(0, limit);
    if (!a.ok()) {
        lock.unlock();
        return a.error();
    }
    slots_[*a] = {std::move(first), cloexec};
    auto b = find_free_locked(0, limit);
    if (!b.ok()) {
        first = std::exchange(slots_[*a], Slot{}).file;
        first_free_ = std::min(first_free_, *a);
        lock.unlock();
        return b.error();
    }
    slots_[*b] = {std::move(second), cloexec};
    return std::pair{Fd{static_cast<int32_t>(*a)}, Fd{static_cast<int32_t>(*b)}};
}

Result<RefPtr<File>> FdTable::replace(Fd fd, RefPtr<File> file, CloseOnExec cloexec,
                                      uint64_t limit) {
    const auto i = static_cast<uint32_t>(to_integer(fd));
    if (i >= limit || i >= kMaxDescriptors) {
        return Errno(EBADF);
    }
    MutexLock lock(mu_);
    if (i >= slots_.size()) {
        slots_.resize(i + 1);
    }
    if (slots_[i].reserved) {
        return Errno(EBUSY);  // dup2(2): "a race condition with open(2) and dup()"
    }
    return std::exchange(slots_[i], Slot{std::move(file), cloexec}).file;
}

Result<RefPtr<File>> FdTable::remove(Fd fd) {
    const auto i = static_cast<uint32_t>(to_integer(fd));
    MutexLock lock(mu_);
    if (i >= slots_.size() || !slots_[i].file) {
        return Errno(EBADF);
    }
    first_free_ = std::min<size_t>(first_free_, i);
    return std::exchange(slots_[i], Slot{}).file;
}

Result<CloseOnExec> FdTable::close_on_exec(Fd fd) const {
    const auto i = static_cast<uint32_t>(to_integer(fd));
    MutexLock lock(mu_);
    if (i >= slots_.size() || !slots_[i].file) {
        return Errno(EBADF);
    }
    return slots_[i].cloexec;
}

Status FdTable::set_close_on_exec(Fd fd, CloseOnExec cloexec) {
    const auto i = static_cast<uint32_t>(to_integer(fd));
    MutexLock lock(mu_);
    if (i >= slots_.size() || !slots_[i].file) {
        return Errno(EBADF);
    }
    slots_[i].cloexec = cloexec;
    return {};
}

std::vector<RefPtr<File>> FdTable::take_close_on_exec() {
    std::vector<RefPtr<File>> taken;
    MutexLock lock(mu_);
    for (size_t i = 0; i < slots_.size(); i++) {
        if (slots_[i].file && slots_[i].cloexec == CloseOnExec::kYes) {
            taken.push_back(std::exchange(slots_[i], Slot{}).file);
            first_free_ = std::min(first_free_, i);
        }
    }
    return taken;
}

std::vector<RefPtr<File>> FdTable::take_all() {
    std::vector<RefPtr<File>> taken;
    MutexLock lock(mu_);
    for (Slot& slot : slots_) {
        if (slot.file) {
            taken.push_back(std::move(slot.file));
        }
    }
    slots_.clear();
    first_free_ = 0;
    return taken;
}

std::vector<Fd> FdTable::numbers() const {
    std::vector<Fd> numbers;
    MutexLock lock(mu_);
    for (size_t i = 0; i < slots_.size(); i++) {
        if (slots_[i].file) {
            numbers.push_back(Fd{static_cast<int32_t>(i)});
        }
    }
    return numbers;
}

size_t FdTable::size() const {
    MutexLock lock(mu_);
    size_t open = 0;
    for (const Slot& slot : slots_) {
        open += slot.file ? 1 : 0;
    }
    return open;
}

}  // namespace moat::kernel
