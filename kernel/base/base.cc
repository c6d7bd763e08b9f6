#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/base/check.h"
#include "kernel/base/mutex.h"

namespace moat {

namespace {

void print(const char* text) {
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text, strlen(text));
}

struct HeldRanks {
    LockRank ranks[32];
    int depth = 0;
};
thread_local HeldRanks held;

}  // namespace

void check_failed(const char* condition, const char* file, int line) {
    char text[512];
    snprintf(text, sizeof text, "moat: CHECK failed: %s (%s:%d)\n", condition, file, line);
    print(text);
    abort();
}

void lock_rank_acquire(LockRank rank, bool same_rank_allowed) {
    if (held.depth > 0) {
        const LockRank top = held.ranks[held.depth - 1];
        if (top > rank || (top == rank && !same_rank_allowed)) {
            char text[256];
            snprintf(text, sizeof text, "moat: lock order: %s taken while holding %s\n",
                     lock_rank_name(rank), lock_rank_name(top));
            print(text);
            abort();
        }
    }
    CHECK(held.depth < 32);
    held.ranks[held.depth++] = rank;
}

void lock_rank_release(LockRank rank) {
    for (int i = held.depth - 1; i >= 0; i--) {
        if (held.ranks[i] == rank) {
            memmove(&held.ranks[i], &held.ranks[i + 1], (held.depth - i - 1) * sizeof(LockRank));
            held.depth--;
            return;
        }
    }
    CHECK(!"released a lock that is not held");
}

void assert_no_locks_held([[maybe_unused]] const char* where) {
#if MOAT_LOCK_RANKS
    if (held.depth > 0) {
        char text[256];
        snprintf(text, sizeof text, "moat: %s with %s held\n", where,
                 lock_rank_name(held.ranks[held.depth - 1]));
        print(text);
        abort();
    }
#endif
}

const char* lock_rank_name(LockRank rank) {
    static const char* const kNames[] = {
        "control",        "container",      "mount table",  "rename",      "inode directory",
        "inode data",     "file position",  "file system",  "dentry tree", "inode attributes",
        "epoll topology", "epoll",          "socket table", "socket",      "ipc",
        "fifo table",     "pipe",           "event file",   "tty",         "task table",
        "signal",         "fs context",     "fd table",     "file locks",  "address space",
        "futex bucket",   "process timers", "timer",        "task",        "host poller",
        "wait queue",     "platform",       "listener",     "counters",    "log",
    };
    static_assert(sizeof kNames / sizeof *kNames == static_cast<size_t>(LockRank::kCount));
    return kNames[static_cast<size_t>(rank)];
}

}  // namespace moat
