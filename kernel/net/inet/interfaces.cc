#include "kernel/net/inet/interfaces.h"

#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "kernel/base/scoped_fd.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr size_t kMostInterfaces = 1024;

Result<int64_t> list_interfaces(Task& task, int host_fd, uint64_t argument) {
    const UserPtr<ifconf> user(argument);
    ifconf request = TRY(task.copy_in(user.cast<const ifconf>()));
    const UserPtr<ifreq> list(reinterpret_cast<uint64_t>(request.ifc_buf));
    if (request.ifc_len < 0) {
        return Errno(EINVAL);
    }
    const size_t room = static_cast<size_t>(request.ifc_len) / sizeof(ifreq);
    std::vector<ifreq> rows(list ? std::min(room, kMostInterfaces) : 0);
    ifconf host{};
    host.ifc_len = static_cast<int>(rows.size() * sizeof(ifreq));
    host.ifc_req = list ? rows.data() : nullptr;
    TRY(host_result(::ioctl(host_fd, SIOCGIFCONF, &host)));
    if (list) {
        const size_t size =
            std::min(static_cast<size_t>(host.ifc_len), rows.size() * sizeof(ifreq));
        TRY(task.copy_out_bytes(list.address(), rows.data(), size));
    }
    request.ifc_len = host.ifc_len;
    TRY(task.copy_out(user, request));
    return 0;
}

}  // namespace

bool is_interface_ioctl(uint32_t command) {
    switch (command) {
        case SIOCGIFNAME:
        case SIOCGIFCONF:
        case SIOCGIFFLAGS:
        case SIOCGIFADDR:
        case SIOCGIFDSTADDR:
        case SIOCGIFBRDADDR:
        case SIOCGIFNETMASK:
        case SIOCGIFMETRIC:
        case SIOCGIFMTU:
        case SIOCGIFHWADDR:
        case SIOCGIFINDEX:
        case SIOCGIFTXQLEN:
        case SIOCGIFMAP:
            return true;
        default:
            return false;
    }
}

Result<int64_t> interface_ioctl(Task& task, int host_fd, uint32_t command, uint64_t argument) {
    if (command == SIOCGIFMAP) {
        return unsupported("SIOCGIFMAP", EINVAL);  // holds addresses of the host's memory
    }
    ScopedFd own;
    if (host_fd < 0) {
        own.reset(
            TRY(host_result(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))));
        host_fd = own.get();
    }
    if (command == SIOCGIFCONF) {
        return list_interfaces(task, host_fd, argument);
    }
    const UserPtr<ifreq> user(argument);
    ifreq request = TRY(task.copy_in(user.cast<const ifreq>()));
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    TRY(host_result(::ioctl(host_fd, command, &request)));
    TRY(task.copy_out(user, request));
    return 0;
}

}  // namespace moat::kernel
