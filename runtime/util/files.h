#pragma once

#include <string>

#include "kernel/base/scoped_fd.h"
#include "runtime/error.h"

namespace moat::runtime {

/// The whole file; EFBIG above 16 MiB.
Result<std::string> read_whole_file(const std::string& path);

enum class Durability {
    /// The old or the new content is there after a kill at any instant. Enough for what dies with
    /// the
    /// machine anyway.
    kProcess,
    /// Also after a loss of power: fsync before the rename.
    kMachine,
};
/// Replaces `directory/name`: written beside it, then renamed.
Status replace_file(int directory_fd, const std::string& name, const std::string& content,
                    Durability durability, mode_t mode = 0600);
/// Absolute, without symlinks; ENOENT if it does not exist.
Result<std::string> real_path(const std::string& path);
/// mkdir -p with the given mode for the new ones.
Status make_directories(const std::string& path, mode_t mode);
/// Removes a directory and everything below it, never following symlinks or crossing mounts.
/// What is not there is success.
Status remove_tree(const std::string& path);
/// write(2) until all is written.
Status write_all(int fd, const std::string& content);
/// A sealed memfd with that content, its offset at 0.
Result<ScopedFd> memory_file(const char* name, const std::string& content);

}  // namespace moat::runtime
