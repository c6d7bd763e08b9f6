#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "cri/store/database.h"

namespace moat::cri {

/// Rows of layers, roots and images are marked with the boot that wrote them (column `unsynced`)
/// until their files are known to be on the disk: a pull need not wait for that, and the rows and
/// files of a pull that a power cut overtook are recognised by the mark of another boot. A kill of
/// moatd loses nothing: the files are in the page cache.
class Settler {
  public:
    /// `directory`: on the file system that the files are on.
    Settler(std::string directory, Database& database);
    ~Settler();
    Settler(const Settler&) = delete;
    Settler& operator=(const Settler&) = delete;

    /// This boot's mark; never empty.
    const std::string& mark() const { return mark_; }
    /// Forgets what an earlier boot left unsynced; their directories then have no row.
    Status discard_lost();
    /// Syncs, and takes the marks off, within a minute; what is not done at the end, the next does.
    void settle();
    /// The same at once.
    Status settle_now();

  private:
    void work();

    const std::string directory_;
    const std::string mark_;
    Database& database_;
    std::mutex mu_;
    std::condition_variable changed_;
    bool wanted_ = false;  ///< guarded by mu_
    bool ending_ = false;  ///< guarded by mu_
    std::thread worker_;   ///< started by the first settle(); guarded by mu_ until ending_
};

}  // namespace moat::cri
