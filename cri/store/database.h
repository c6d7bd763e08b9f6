#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "cri/base/error.h"
#include "cri/base/fault_point.h"
#include "cri/store/reserve.h"

struct sqlite3;
struct sqlite3_stmt;

namespace moat::cri {

/// A parameter that is bound as bytes, not as text.
struct Blob {
    std::string_view bytes;
};

/// One row of a result; only valid inside the callback that receives it.
class Row {
  public:
    explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
    int64_t integer(int column) const;
    std::string text(int column) const;  ///< also for blobs

  private:
    sqlite3_stmt* statement_;
};

/// What a write that has returned survives. A kill: always. A power cut takes the last writes along
/// unless they are asked to wait for the disk; which are lost is always a tail, in the order of
/// writing, so what a synced write says holds of all before it.
enum class Survives { kKill, kPowerCut };

/// A query for one number, on a read-only connection of its own: it waits for nobody who writes.
/// Thread-safe.
class NumberQuery {
  public:
    ~NumberQuery();
    NumberQuery(const NumberQuery&) = delete;
    NumberQuery& operator=(const NumberQuery&) = delete;
    /// As committed last, by whichever process; nothing if it cannot be read at the moment.
    std::optional<int64_t> ask();

  private:
    friend class Database;
    NumberQuery(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
    std::mutex mu_;
    sqlite3* db_;
    sqlite3_stmt* statement_;
};

/// One connection to a SQLite file, shared by all threads of the process behind a mutex. The file
/// is in WAL mode. Pods and containers do not outlive a power cut themselves: only rows that speak
/// of what does (addresses that a CNI plugin keeps, files of images) need Survives::kPowerCut.
/// Other processes (`moatd image load`) may have the file open as well. ENOSPC: its file system is
/// full.
class Database {
  public:
    using Visitor = std::function<void(const Row&)>;
    using Parameters = std::initializer_list<struct Parameter>;

    /// Opens or makes the file and brings its schema to the current version.
    static Result<std::unique_ptr<Database>> open(const std::string& path);
    ~Database();

    template <typename... Args>
    Status run(std::string_view sql, const Args&... args) {
        const std::lock_guard lock(mu_);
        const Status status = query_locked(sql, nullptr, args...);
        if (status.ok()) {
            reserve_.take();
        }
        return status;
    }
    /// As run(), and on the disk.
    template <typename... Args>
    Status run_synced(std::string_view sql, const Args&... args) {
        const std::lock_guard lock(mu_);
        set_synced(true);
        const Status status = query_locked(sql, nullptr, args...);
        set_synced(false);
        return status;
    }
    /// For what ends or removes something: gets through on a full file system too, once, as long as
    /// the reserve is there (reserve.h).
    template <typename... Args>
    Status run_freeing(std::string_view sql, const Args&... args) {
        const Status status = run(sql, args...);
        if (status.ok() || status.error().code() != ENOSPC) {
            return status;
        }
        const std::lock_guard lock(mu_);
        return reserve_.give_up() ? query_locked(sql, nullptr, args...) : status;
    }
    /// Gives the reserve up, for a transaction that frees something and found no room: it may be
    /// tried again. False: there was none.
    bool make_room() {
        const std::lock_guard lock(mu_);
        return reserve_.give_up();
    }
    /// Before something new is begun. ENOSPC: the reserve has been given up, and what is left of
    /// the file system is for taking things down.
    Status check_room();
    template <typename... Args>
    Status query(std::string_view sql, const Visitor& visit, const Args&... args) {
        const std::lock_guard lock(mu_);
        return query_locked(sql, &visit, args...);
    }

    /// Null if it cannot be made.
    std::unique_ptr<NumberQuery> number_query(const std::string& sql) const;

    /// BEGIN IMMEDIATE to commit(); rolled back when it ends without. Holds the connection's mutex,
    /// so the owner must not use the database itself meanwhile.
    class Transaction {
      public:
        Transaction(const Transaction&) = delete;
        Transaction& operator=(const Transaction&) = delete;
        Transaction(Transaction&& other) noexcept
            : database_(std::exchange(other.database_, nullptr)),
              lock_(std::move(other.lock_)),
              synced_(other.synced_) {}
        ~Transaction();
        template <typename... Args>
        Status run(std::string_view sql, const Args&... args) {
            return database_->query_locked(sql, nullptr, args...);
        }
        template <typename... Args>
        Status query(std::string_view sql, const Visitor& visit, const Args&... args) {
            return database_->query_locked(sql, &visit, args...);
        }
        Status commit();

      private:
        friend class Database;
        Transaction(Database& database, std::unique_lock<std::mutex> lock, bool synced)
            : database_(&database), lock_(std::move(lock)), synced_(synced) {}
        void end();
        Database* database_;
        std::unique_lock<std::mutex> lock_;
        bool synced_;
    };
    Result<Transaction> begin(Survives survives = Survives::kKill);
    /// For a few reads that must agree: takes no lock that a writer would wait for.
    Result<Transaction> begin_reading();

  private:
    /// Whether what is committed from now on waits for the disk. Not inside a transaction.
    void set_synced(bool synced);
    Database(sqlite3* db, const std::string& path)
        : path_(path), db_(db), reserve_(path + ".reserve") {}
    Status migrate();
    Error failure(std::string_view sql) const;
    Result<sqlite3_stmt*> prepare(std::string_view sql);
    Status step_all(sqlite3_stmt* statement, std::string_view sql, const Visitor* visit);
    static void bind(sqlite3_stmt* statement, int index, int64_t value);
    static void bind(sqlite3_stmt* statement, int index, std::string_view value);
    static void bind(sqlite3_stmt* statement, int index, Blob value);

    template <typename... Args>
    Status query_locked(std::string_view sql, const Visitor* visit, const Args&... args) {
        sqlite3_stmt* statement = TRY(prepare(sql));
        int index = 0;
        (bind_any(statement, ++index, args), ...);
        if (visit != nullptr) {
            return step_all(statement, sql, visit);
        }
        fault_point_of_statement("before", sql);
        const Status status = step_all(statement, sql, visit);
        fault_point_of_statement("after", sql);
        return status;
    }
    template <typename T>
    static void bind_any(sqlite3_stmt* statement, int index, const T& value) {
        if constexpr (std::is_enum_v<T> || std::integral<T>) {
            bind(statement, index, static_cast<int64_t>(value));
        } else if constexpr (std::same_as<T, Blob>) {
            bind(statement, index, value);
        } else {
            bind(statement, index, std::string_view(value));
        }
    }

    const std::string path_;
    std::mutex mu_;
    sqlite3* db_;
    /// By their text, of which there are as many as in our source; guarded by mu_.
    std::map<std::string, sqlite3_stmt*, std::less<>> prepared_;
    Reserve reserve_;  ///< guarded by mu_
};

}  // namespace moat::cri
