#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/inode.h"

namespace moat::kernel {

class Container;

/// What a file system is to be made of.
struct FileSystemRequest {
    Container* container = nullptr;  ///< whose: procfs shows its pid namespace
    Task* task = nullptr;            ///< the caller of mount(2); null at boot
    std::string source;
    std::vector<std::string> options;  ///< "size=64m", "mode=1777", "gid=5"
    bool read_only = false;
};

using FileSystemFactory = std::function<Result<RefPtr<FileSystem>>(const FileSystemRequest&)>;

enum class GuestMayMount : bool { kNo, kYes };

/// Makes a type of file system known by its name in mount(2) and plans: "tmpfs", "proc", "sysfs",
/// "devtmpfs", "devpts", "mqueue", "cgroup2". At boot only.
void register_file_system(std::string name, GuestMayMount guest, FileSystemFactory factory);
/// ENODEV: no such type; EPERM: a guest (request.task) may not mount it.
Result<RefPtr<FileSystem>> make_file_system(std::string_view name,
                                            const FileSystemRequest& request);
/// For /proc/filesystems.
std::vector<std::string> file_system_types();

/// Makes the description behind a device node that was opened, wherever the node lies.
using DeviceOpener =
    std::function<Result<RefPtr<File>>(Task&, const Path& path, uint64_t rdev, uint32_t flags)>;
/// `minor` -1: all of the major that have no opener of their own. At boot only.
void register_character_device(uint32_t major, int32_t minor, DeviceOpener opener);

/// For Inode::open of file systems that hold special files (tmpfs, overlay, devtmpfs, gofer):
/// devices by the registry above (ENXIO: none), FIFOs by the opener below. ENXIO for sockets.
Result<RefPtr<File>> open_special(Task& task, Inode& inode, const Path& path, uint64_t rdev,
                                  uint32_t flags);
/// Makes a description of a FIFO; the pipe is found through inode.extras().attach(). May be
/// returned before the other end is there: see File::finish_open(). Set by kernel/fs/pipe at boot.
using FifoOpener =
    std::function<Result<RefPtr<File>>(Task&, Inode& inode, const Path& path, uint32_t flags)>;
void set_fifo_opener(FifoOpener opener);

}  // namespace moat::kernel
