#include "cri/images/settler.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <vector>

#include "cri/base/files.h"

namespace moat::cri {

namespace {

struct Kind {
    const char* list;
    const char* unmark;
};

/// Longer than the kernel keeps what is dirty (vm.dirty_expire_centisecs): the sync then finds
/// little to do, and neither the next pulls nor anybody else on the file system wait for it.
constexpr std::chrono::seconds kDelay{40};

/// Images last: one that has lost its mark stands on roots and layers without one.
constexpr Kind kKinds[] = {
    {"SELECT diff_id FROM layers WHERE unsynced<>''",
     "UPDATE layers SET unsynced='' WHERE diff_id=?"},
    {"SELECT chain_id FROM roots WHERE unsynced<>''",
     "UPDATE roots SET unsynced='' WHERE chain_id=?"},
    {"SELECT id FROM images WHERE unsynced<>''", "UPDATE images SET unsynced='' WHERE id=?"},
};

std::string boot_id() {
    auto text = read_file("/proc/sys/kernel/random/boot_id", 100);
    // Without one no boot is ever known again: what is unsynced then goes at each start.
    return text.ok() && !text->empty() ? std::move(*text) : random_id();
}

}  // namespace

Settler::Settler(std::string directory, Database& database)
    : directory_(std::move(directory)), mark_(boot_id()), database_(database) {}

Settler::~Settler() {
    {
        const std::lock_guard lock(mu_);
        ending_ = true;
    }
    changed_.notify_all();
    if (worker_.joinable()) {
        worker_.join();
    }
}

Status Settler::discard_lost() {
    bool lost = false;
    TRY(database_.query(
        "SELECT 1 FROM images WHERE unsynced NOT IN ('', ?1)"
        " UNION ALL SELECT 1 FROM roots WHERE unsynced NOT IN ('', ?1)"
        " UNION ALL SELECT 1 FROM layers WHERE unsynced NOT IN ('', ?1) LIMIT 1",
        [&](const Row&) { lost = true; }, mark_));
    if (!lost) {
        return {};
    }
    spdlog::warn("images: the machine went down before all of them were on the disk: those go");
    auto transaction = TRY(database_.begin());
    TRY(transaction.run("DELETE FROM layers WHERE unsynced NOT IN ('', ?)", mark_));
    TRY(
        transaction.run("DELETE FROM roots WHERE unsynced NOT IN ('', ?) OR EXISTS"
                        " (SELECT 1 FROM json_each(roots.diff_ids)"
                        " WHERE value NOT IN (SELECT diff_id FROM layers))",
                        mark_));
    TRY(
        transaction.run("DELETE FROM images WHERE unsynced NOT IN ('', ?)"
                        " OR chain_id NOT IN (SELECT chain_id FROM roots)",
                        mark_));
    return transaction.commit();
}

void Settler::settle() {
    const std::lock_guard lock(mu_);
    wanted_ = true;
    if (!worker_.joinable()) {
        worker_ = std::thread([this] { work(); });
    }
    changed_.notify_all();
}

void Settler::work() {
    std::unique_lock lock(mu_);
    for (;;) {
        changed_.wait(lock, [this] { return wanted_ || ending_; });
        if (ending_) {
            return;
        }
        if (changed_.wait_for(lock, kDelay, [this] { return ending_; })) {
            return;  // the marks stay, and the next start goes on
        }
        wanted_ = false;
        lock.unlock();
        if (const Status done = settle_now(); !done.ok()) {
            // The marks stay, and the next pull or the next start tries again.
            spdlog::error("images: not known to be on the disk: {}", done.error().message());
        }
        lock.lock();
    }
}

Status Settler::settle_now() {
    // Only what has its files in place before the sync: each has, when it has a row.
    std::vector<std::pair<const char*, std::string>> marked;
    {
        auto transaction = TRY(database_.begin_reading());
        for (const Kind& kind : kKinds) {
            TRY(transaction.query(
                kind.list, [&](const Row& row) { marked.emplace_back(kind.unmark, row.text(0)); }));
        }
        TRY(transaction.commit());
    }
    if (marked.empty()) {
        return {};
    }
    const ScopedFd fd(open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd || syncfs(fd.get()) != 0) {
        return Error::from_errno(errno, "sync the file system of " + directory_);
    }
    auto transaction = TRY(database_.begin());
    for (const auto& [unmark, id] : marked) {
        TRY(transaction.run(unmark, id));
    }
    return transaction.commit();
}

}  // namespace moat::cri
