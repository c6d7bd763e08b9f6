#include "kernel/fs/dev/devices.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/fs/dev/kernel_log.h"
#include "kernel/fs/registry.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kMemoryMajor = 1;

/// What /dev/null, zero, full and random have in common (Linux: drivers/char/mem.c).
class MemoryDevice : public File {
  public:
    explicit MemoryDevice(uint32_t flags) : File(flags) {}
    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t) override {
        return read(task, destination);
    }
    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t) override {
        return write(task, source);
    }
    Result<int64_t> seek(Task&, int64_t, int) override { return 0; }
    Result<size_t> write(Task&, IoBuffer& source) override { return source.skip_rest(); }
    bool can_epoll() override { return false; }
};

class NullDevice final : public MemoryDevice {
  public:
    using MemoryDevice::MemoryDevice;
    std::string anonymous_name() const override { return "/dev/null"; }
    Result<size_t> read(Task&, IoBuffer&) override { return size_t{0}; }
    /// As a standard stream it has no path; programs open /dev/stdout all the same.
    Result<RefPtr<File>> reopen(Task&, uint32_t flags) override {
        return RefPtr<File>(make_ref<NullDevice>(flags));
    }
};

class ZeroDevice final : public MemoryDevice {
  public:
    using MemoryDevice::MemoryDevice;
    Result<size_t> read(Task&, IoBuffer& destination) override {
        return destination.put_zeros(destination.remaining());
    }
};

class FullDevice final : public MemoryDevice {
  public:
    using MemoryDevice::MemoryDevice;
    Result<size_t> read(Task&, IoBuffer& destination) override {
        return destination.put_zeros(destination.remaining());
    }
    Result<size_t> write(Task&, IoBuffer& source) override {
        return source.remaining() == 0 ? Result<size_t>(size_t{0}) : Errno(ENOSPC);
    }
};

/// random and urandom: the host's pool, as getrandom(2) has been since Linux 5.6.
class RandomDevice final : public MemoryDevice {
  public:
    using MemoryDevice::MemoryDevice;
    Result<size_t> read(Task&, IoBuffer& destination) override {
        size_t total = 0;
        while (destination.remaining() > 0 && total < kMostAtOnce) {
            char bytes[4096];
            const ssize_t n = getrandom(bytes, std::min(sizeof bytes, destination.remaining()), 0);
            if (n <= 0) {
                return total > 0 ? Result<size_t>(total) : Errno(EIO);
            }
            const auto put = destination.put(bytes, static_cast<size_t>(n));
            if (!put.ok()) {
                return total > 0 ? Result<size_t>(total) : put;
            }
            total += *put;
            if (*put < static_cast<size_t>(n)) {
                break;
            }
        }
        return total;
    }
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override {
        if (command == RNDGETENTCNT) {
            TRY(task.copy_out(UserPtr<int32_t>(argument), 256));
            return 0;
        }
        if (command == RNDADDTOENTCNT || command == RNDADDENTROPY || command == RNDCLEARPOOL ||
            command == RNDZAPENTCNT || command == RNDRESEEDCRNG) {
            return Errno(EPERM);  // the host's pool is not the guest's to change
        }
        return Errno(EINVAL);
    }

  private:
    static constexpr size_t kMostAtOnce = 1 << 20;  // a short read, so that no worker is held long
};

template <typename Device>
DeviceOpener opener() {
    return [](Task&, const Path& path, uint64_t, uint32_t flags) -> Result<RefPtr<File>> {
        RefPtr<File> file = make_ref<Device>(flags);
        file->set_path(path);
        return file;
    };
}

}  // namespace

void register_dev_file_system();

void register_devices() {
    register_character_device(kMemoryMajor, 3, opener<NullDevice>());
    register_character_device(kMemoryMajor, 5, opener<ZeroDevice>());
    register_character_device(kMemoryMajor, 7, opener<FullDevice>());
    register_character_device(kMemoryMajor, 8, opener<RandomDevice>());
    register_character_device(kMemoryMajor, 9, opener<RandomDevice>());
    register_character_device(
        kMemoryMajor, 11,
        [](Task&, const Path& path, uint64_t, uint32_t flags) -> Result<RefPtr<File>> {
            auto file = make_kmsg_file(flags);
            file->set_path(path);
            return file;
        });
    register_dev_file_system();
}

RefPtr<File> make_null_file(uint32_t flags) { return make_ref<NullDevice>(flags); }

bool is_zero_device(const File& file) { return dynamic_cast<const ZeroDevice*>(&file) != nullptr; }

}  // namespace moat::kernel
