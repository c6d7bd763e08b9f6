#include "cri/store/database.h"

#include <sqlite3.h>

#include "cri/store/schema.h"

namespace moat::cri {

int64_t Row::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Row::text(int column) const {
    const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return data == nullptr
               ? std::string()
               : std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
    sqlite3* raw = nullptr;
    const int code = sqlite3_open_v2(
        path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
        nullptr);
    std::unique_ptr<Database> database(new Database(raw, path));
    if (code != SQLITE_OK) {
        return internal_error("open database " + path + ": " + sqlite3_errstr(code));
    }
    sqlite3_busy_timeout(raw, 30'000);
    for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                               "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY"}) {
        TRY_STEP("database " + path, database->run(pragma));
    }
    TRY_STEP("database " + path, database->migrate());
    return database;
}

Database::~Database() {
    for (const auto& [sql, statement] : prepared_) {
        sqlite3_finalize(statement);
    }
    sqlite3_close_v2(db_);
}

NumberQuery::~NumberQuery() {
    sqlite3_finalize(statement_);
    sqlite3_close_v2(db_);
}

std::optional<int64_t> NumberQuery::ask() {
    const std::lock_guard lock(mu_);
    std::optional<int64_t> number;
    if (sqlite3_step(statement_) == SQLITE_ROW) {
        number = sqlite3_column_int64(statement_, 0);
    }
    sqlite3_reset(statement_);
    return number;
}

std::unique_ptr<NumberQuery> Database::number_query(const std::string& sql) const {
    sqlite3* db = nullptr;
    sqlite3_stmt* statement = nullptr;
    // NOMUTEX: it has its own.
    if (sqlite3_open_v2(path_.c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, nullptr) !=
            SQLITE_OK ||
        sqlite3_prepare_v3(db, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) !=
            SQLITE_OK) {
        sqlite3_close_v2(db);
        return nullptr;
    }
    return std::unique_ptr<NumberQuery>(new NumberQuery(db, statement));
}

Error Database::failure(std::string_view sql) const {
    const int code = sqlite3_extended_errcode(db_);
    const std::string message = std::string(sqlite3_errmsg(db_)) + " in: " + std::string(sql);
    if ((code & 0xff) == SQLITE_CONSTRAINT) {
        return already_exists(message);
    }
    // The write-ahead log's index says it by the error of the host alone.
    if ((code & 0xff) == SQLITE_FULL ||
        ((code & 0xff) == SQLITE_IOERR && sqlite3_system_errno(db_) == ENOSPC)) {
        return Error(ENOSPC, path_ + ": its file system is full: " + message);
    }
    return internal_error(message);
}

Status Database::check_room() {
    const std::lock_guard lock(mu_);
    return reserve_.lost() ? Status(Error(ENOSPC, path_ + ": its file system is full: what is left "
                                                          "of it is for removing things"))
                           : Status();
}

Result<sqlite3_stmt*> Database::prepare(std::string_view sql) {
    if (const auto it = prepared_.find(sql); it != prepared_.end()) {
        return it->second;
    }
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                           &statement, nullptr) != SQLITE_OK) {
        return failure(sql);
    }
    prepared_.emplace(sql, statement);
    return statement;
}

Status Database::step_all(sqlite3_stmt* statement, std::string_view sql, const Visitor* visit) {
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (visit != nullptr) {
            (*visit)(Row(statement));
        }
    }
    Status status;
    if (code != SQLITE_DONE) {
        status = failure(sql);
    }
    // It stays prepared; what it held of the arguments and of the database, it lets go of.
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

void Database::bind(sqlite3_stmt* statement, int index, int64_t value) {
    sqlite3_bind_int64(statement, index, value);
}
void Database::bind(sqlite3_stmt* statement, int index, std::string_view value) {
    // The caller's arguments outlive the statement: no copy. A null pointer would bind NULL.
    sqlite3_bind_text(statement, index, value.data() == nullptr ? "" : value.data(),
                      static_cast<int>(value.size()), SQLITE_STATIC);
}
void Database::bind(sqlite3_stmt* statement, int index, Blob value) {
    sqlite3_bind_blob(statement, index, value.bytes.data() == nullptr ? "" : value.bytes.data(),
                      static_cast<int>(value.bytes.size()), SQLITE_STATIC);
}

void Database::set_synced(bool synced) {
    (void)sqlite3_exec(db_, synced ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
                       nullptr, nullptr, nullptr);
}

Result<Database::Transaction> Database::begin_reading() {
    std::unique_lock lock(mu_);
    TRY(query_locked("BEGIN", nullptr));
    return Transaction(*this, std::move(lock), false);
}

Result<Database::Transaction> Database::begin(Survives survives) {
    std::unique_lock lock(mu_);
    const bool synced = survives == Survives::kPowerCut;
    if (synced) {
        set_synced(true);
    }
    if (const Status begun = query_locked("BEGIN IMMEDIATE", nullptr); !begun.ok()) {
        if (synced) {
            set_synced(false);
        }
        return begun.error();
    }
    return Transaction(*this, std::move(lock), synced);
}

Database::Transaction::~Transaction() {
    if (database_ != nullptr && lock_.owns_lock()) {
        (void)database_->query_locked("ROLLBACK", nullptr);
        end();
    }
}

Status Database::Transaction::commit() {
    TRY(database_->query_locked("COMMIT", nullptr));
    end();
    return {};
}

void Database::Transaction::end() {
    if (synced_) {
        database_->set_synced(false);
    }
    lock_.unlock();
    database_ = nullptr;
}

Status Database::migrate() {
    // IMMEDIATE: of two processes that open a fresh file at once, the second finds the work done.
    Transaction transaction = TRY(begin());
    int64_t version = 0;
    TRY(transaction.query("PRAGMA user_version",
                          [&](const Row& row) { version = row.integer(0); }));
    const auto known = static_cast<int64_t>(kMigrations.size());
    if (version > known) {
        return internal_error("its schema is version " + std::to_string(version) +
                              ", this moatd knows " + std::to_string(known) +
                              ": written by a newer moatd");
    }
    for (int64_t i = version; i < known; ++i) {
        for (const char* statement : kMigrations[static_cast<size_t>(i)]) {
            TRY_STEP("schema version " + std::to_string(i + 1), transaction.run(statement));
        }
    }
    TRY(transaction.run("PRAGMA user_version=" + std::to_string(known)));
    return transaction.commit();
}

}  // namespace moat::cri
