#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/arch/x86_64/registers.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"
#include "kernel/mm/address_space.h"
#include "kernel/platform/host_process.h"

namespace moat::kernel {

class Task;

/// What execve(2) is to load, everything about it decided.
struct LoadRequest {
    RefPtr<File> executable;
    std::string path;  ///< as given: AT_EXECFN
    std::vector<std::string> arguments;
    std::vector<std::string> environment;
    uint64_t stack_limit = 8 << 20;  ///< RLIMIT_STACK
    bool randomize = true;
    bool secure = false;  ///< AT_SECURE
    uint32_t uid = 0, euid = 0, gid = 0, egid = 0;
};

struct LoadedImage {
    RefPtr<AddressSpace> mm;
    RefPtr<platform::HostThread> thread;
    arch::Registers registers{};
};

/// Loads an ELF image (elf(5)) and its interpreter into a clean process of the task's container and
/// builds the initial stack. ENOEXEC: not one for this machine; E2BIG, ENOMEM, EACCES, ELIBBAD.
Result<LoadedImage> load_image(Task& task, const LoadRequest& request);

}  // namespace moat::kernel
