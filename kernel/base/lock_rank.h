#pragma once

#include <cstdint>

namespace moat {

/// The order in which the kernel's locks are taken, outermost first. A thread that holds a lock may
/// only take locks of a higher rank. One line each on what it guards.
enum class LockRank : uint16_t {
    kControl,          // control server: containers, waiters for exits
    kContainer,        // one container: its state and its init
    kMountTable,       // a mount namespace's tree (Linux: namespace_sem)
    kFilePosition,     // an open file's offset (Linux: f_pos_lock)
    kRename,           // a file system's rename exclusion (Linux: s_vfs_rename_mutex)
    kInodeDirectory,   // a directory's entries while they change (Linux: i_rwsem of a directory)
    kInodeData,        // a file's contents and size (Linux: i_rwsem of a file)
    kFileSystem,       // a file system's own tables
    kDentryTree,       // children of dentries (Linux: d_lock)
    kInodeAttributes,  // mode, owner, times
    kEpollTopology,    // which epoll instances watch which files
    kEpoll,            // an epoll instance's items
    kSocketTable,      // bound addresses of unix sockets
    kSocket,           // one socket's state; two of them by address order
    kIpc,              // System V identifiers
    kFifoTable,        // open pipes of FIFO inodes
    kPipe,             // one pipe's buffer
    kEventFile,        // an eventfd's counter, a timerfd's timer, a signalfd's mask
    kTty,              // a terminal's line discipline and sessions
    kTaskTable,        // process tree, groups, sessions, thread lists (Linux: tasklist_lock)
    kSignal,           // pending signals, actions, stop state of a thread group (Linux: siglock)
    kFsContext,        // root, cwd, umask of tasks (Linux: fs_struct.lock)
    kFdTable,          // a descriptor table (Linux: file_lock)
    kFileLocks,        // advisory locks of an inode
    kAddressSpace,     // brk, named mappings, host threads of one address space
    kFutexBucket,      // a bucket of the futex table; two by address order
    kProcessTimers,    // a process's interval and POSIX timers
    kTimer,            // the timer queue
    kTask,             // a task's blocked state
    kHostPoller,       // watched host descriptors
    kWaitQueue,        // waiters on one event source
    kPlatform,         // host processes by pid, the pool of clean processes
    kListener,         // host threads that share one listener
    kCounters,         // statistics, the kernel message buffer
    kLog,              // the log's descriptor
    kCount,
};

const char* lock_rank_name(LockRank rank);

}  // namespace moat
