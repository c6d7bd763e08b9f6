#include "kernel/fs/registry.h"

#include <sys/sysmacros.h>

#include <map>

#include "kernel/fs/dentry.h"

namespace moat::kernel {

namespace {

struct Type {
    GuestMayMount guest;
    FileSystemFactory factory;
};

// Filled at boot, read only afterwards.
struct Registry {
    std::map<std::string, Type, std::less<>> types;
    std::map<std::pair<uint32_t, int32_t>, DeviceOpener> devices;
    FifoOpener fifo;
};

Registry& registry() {
    static Registry* const instance = new Registry();
    return *instance;
}

}  // namespace

void register_file_system(std::string name, GuestMayMount guest, FileSystemFactory factory) {
    registry().types.insert_or_assign(std::move(name), Type{guest, std::move(factory)});
}

Result<RefPtr<FileSystem>> make_file_system(std::string_view name,
                                            const FileSystemRequest& request) {
    const auto it = registry().types.find(name);
    if (it == registry().types.end()) {
        return Errno(ENODEV);
    }
    if (request.task != nullptr && it->second.guest == GuestMayMount::kNo) {
        return Errno(EPERM);
    }
    return it->second.factory(request);
}

std::vector<std::string> file_system_types() {
    std::vector<std::string> names;
    for (const auto& [name, type] : registry().types) {
        names.push_back(name);
    }
    return names;
}

void register_character_device(uint32_t major, int32_t minor, DeviceOpener opener) {
    registry().devices.insert_or_assign({major, minor}, std::move(opener));
}

void set_fifo_opener(FifoOpener opener) { registry().fifo = std::move(opener); }

Result<RefPtr<File>> open_special(Task& task, Inode& inode, const Path& path, uint64_t rdev,
                                  uint32_t flags) {
    switch (inode.type()) {
        case S_IFIFO:
            return registry().fifo ? registry().fifo(task, inode, path, flags)
                                   : Result<RefPtr<File>>(Errno(ENXIO));
        case S_IFCHR: {
            const auto& devices = registry().devices;
            auto it = devices.find({major(rdev), static_cast<int32_t>(minor(rdev))});
            if (it == devices.end()) {
                it = devices.find({major(rdev), -1});
            }
            if (it == devices.end()) {
                return Errno(ENXIO);
            }
            return it->second(task, path, rdev, flags);
        }
        default:
            return Errno(ENXIO);
    }
}

}  // namespace moat::kernel
