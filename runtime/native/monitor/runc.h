#pragma once

// Calls of runc or crun by their command line, and what they leave behind.

#include <sys/types.h>

#include <string>
#include <vector>

#include "kernel/base/scoped_fd.h"

namespace moat::monitor {

/// The runtime's program and where it keeps its state.
struct Program {
    std::string path;
    std::string root;  ///< its --root
    std::string log;   ///< its --log; the last error in it is told to moatd
};

struct StdioFds {
    int in = -1, out = -1, err = -1;  ///< -1: /dev/null
};

/// Runs it to its end. 0, or its exit status, or 127 if it could not be started. The calls'
/// children that it leaves become ours: the monitor is a subreaper. Children of ours that end
/// meanwhile are not reaped here.
int run(const Program& program, const std::vector<std::string>& arguments, const StdioFds& stdio);
/// The message of the last error in its log (JSON lines), or the whole log's end.
std::string last_error(const Program& program);

/// A socket for --console-socket; `path` stays valid for its life, however long the directory's
/// name is.
struct ConsoleSocket {
    ScopedFd directory, listener;
    std::string path;
    bool open(const std::string& in_directory);
    /// The pty's master, which the runtime has sent; invalid if it has not.
    ScopedFd receive();
};

/// A unix socket (SOCK_SEQPACKET or SOCK_STREAM) listening at `directory/name`.
ScopedFd listen_at(int directory, const char* name, int type);

/// Reads a small file; empty if it is not there.
std::string read_text(const std::string& path);
/// Writes beside it and renames.
bool replace_text(const std::string& path, const std::string& text);
/// What has to be written on a full disk too: keep_room() makes room for `size` bytes beforehand,
/// which a later replace_kept() of the same path uses.
bool keep_room(const std::string& path, size_t size);
bool replace_kept(const std::string& path, const std::string& text);
int64_t realtime_ns();
int64_t monotonic_ms();

}  // namespace moat::monitor
