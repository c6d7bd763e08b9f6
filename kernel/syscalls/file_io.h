#pragma once

// read(2)'s and write(2)'s way of waiting, for the calls that move bytes.

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/file.h"
#include "kernel/mm/io_buffer.h"

namespace moat::kernel {

/// Linux: MAX_RW_COUNT.
inline constexpr size_t kMaxTransfer = 0x7ffff000;
/// At the file's own position.
inline constexpr int64_t kOwnPosition = -1;

/// The file behind `fd`, open for reading (writing); EBADF otherwise, and for O_PATH.
Result<RefPtr<File>> readable_file(Task& task, Fd fd);
Result<RefPtr<File>> writable_file(Task& task, Fd fd);
/// EBADF for O_PATH too.
Result<RefPtr<File>> any_file(Task& task, Fd fd);

enum class MayWait : bool { kNo, kYes };

/// Reads into `buffer`, waiting if the file is a blocking one and nothing is there.
Result<int64_t> read_file(Task& task, RefPtr<File> file, IoBuffer buffer,
                          int64_t offset = kOwnPosition, MayWait may_wait = MayWait::kYes);
/// Writes all of `buffer`, waiting as often as it takes; less when it is interrupted after some
/// bytes or an error follows them. EPIPE sends SIGPIPE.
Result<int64_t> write_file(Task& task, RefPtr<File> file, IoBuffer buffer,
                           int64_t offset = kOwnPosition, MayWait may_wait = MayWait::kYes);

}  // namespace moat::kernel
