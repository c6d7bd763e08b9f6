#include "kernel/boot/pause.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel/fs/fd_table.h"
#include "kernel/fs/kernel_task.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/mm/io_buffer.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task_life.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kNobody = 65535;  // as the images of other runtimes' pause have it

// signal(SIGCHLD, SIG_IGN): the kernel collects its children; then pause(2) for ever.
constexpr uint8_t kCode[] = {
    0x6a, 0x00,                          // push 0             sa_mask
    0x6a, 0x00,                          // push 0             sa_restorer
    0x6a, 0x00,                          // push 0             sa_flags
    0x6a, 0x01,                          // push 1             SIG_IGN
    0x48, 0x89, 0xe6,                    // mov rsi, rsp
    0x31, 0xd2,                          // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,  // mov r10d, 8        sizeof(sigset_t)
    0xbf, 0x11, 0x00, 0x00, 0x00,        // mov edi, 17        SIGCHLD
    0xb8, 0x0d, 0x00, 0x00, 0x00,        // mov eax, 13        rt_sigaction
    0x0f, 0x05,                          // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00,        // mov eax, 34        pause
    0x0f, 0x05,                          // syscall
    0xeb, 0xf7,                          // jmp to the mov
};

struct Program {
    Elf64_Ehdr header = {};
    Elf64_Phdr segments[2] = {};
    uint8_t code[sizeof kCode] = {};
};

Program program() {
    constexpr uint64_t kBase = 0x400000;
    Program p;
    memcpy(p.header.e_ident, ELFMAG, SELFMAG);
    p.header.e_ident[EI_CLASS] = ELFCLASS64;
    p.header.e_ident[EI_DATA] = ELFDATA2LSB;
    p.header.e_ident[EI_VERSION] = EV_CURRENT;
    p.header.e_type = ET_EXEC;
    p.header.e_machine = EM_X86_64;
    p.header.e_version = EV_CURRENT;
    p.header.e_entry = kBase + offsetof(Program, code);
    p.header.e_phoff = offsetof(Program, segments);
    p.header.e_ehsize = sizeof(Elf64_Ehdr);
    p.header.e_phentsize = sizeof(Elf64_Phdr);
    p.header.e_phnum = 2;
    p.segments[0] = {PT_LOAD, PF_R | PF_X, 0, kBase, kBase, sizeof p, sizeof p, 0x1000};
    p.segments[1].p_type = PT_GNU_STACK;
    p.segments[1].p_flags = PF_R | PF_W;
    memcpy(p.code, kCode, sizeof kCode);
    return p;
}

Result<RefPtr<MountNamespace>> root_of_pause() {
    TmpfsOptions options;
    options.size = 64 << 10;
    options.mode = 0755;
    auto fs = TmpfsFileSystem::create(options);
    NewInode what{};
    what.mode = S_IFREG | 0755;
    const RefPtr<Inode> file = TRY(fs->root()->create(kernel_task(), "pause", what));
    const Program content = program();
    IoBuffer source = IoBuffer::sentry(&content, sizeof content);
    int64_t end = 0;
    if (TRY(static_cast<TmpfsRegular&>(*file).write_at(source, 0, end)) != sizeof content) {
        return Errno(ENOSPC);
    }
    return MountNamespace::create(fs, MS_RDONLY | MS_NOSUID | MS_NODEV, "none");
}

Result<RefPtr<ThreadGroup>> spawn_pause(const RefPtr<Container>& container) {
    const RefPtr<MountNamespace> mounts = TRY(root_of_pause());
    container->set_mounts(mounts);
    auto credentials = make_ref<Credentials>();
    credentials->uid_count = container->plan().uid_map.length;
    credentials->gid_count = container->plan().gid_map.length;
    credentials->uid = credentials->euid = credentials->suid = credentials->fsuid = kNobody;
    credentials->gid = credentials->egid = credentials->sgid = credentials->fsgid = kNobody;
    credentials->no_new_privs = true;
    SpawnArguments spawn;
    spawn.container = container;
    spawn.arguments = {"/pause"};
    spawn.credentials = credentials;
    spawn.fs = make_ref<FsContext>(mounts, mounts->root(), mounts->root(), 022);
    spawn.fds = make_ref<FdTable>();
    spawn.is_init = true;
    spawn.prepare = [](Task&) -> Status { return {}; };
    spawn.on_exit = [](int) {};
    return TaskLife::spawn(std::move(spawn));
}

}  // namespace

Outcome<RefPtr<Container>> start_pause(const control::ContainerPlan& like,
                                       const RefPtr<PidNamespace>& pids,
                                       const RefPtr<IpcNamespace>& ipc) {
    control::ContainerPlan plan;
    plan.id = "pause";
    plan.hostname = like.hostname;
    plan.uid_map = like.uid_map;
    plan.gid_map = like.gid_map;
    plan.pid_namespace = control::PidNamespace::kContainer;  // with its end all of it ends
    auto zygote = platform::HostProcess::create_zygote();
    if (!zygote.ok()) {
        return Failure{zygote.error().value(), "start a zygote for the pod's pause process"};
    }
    auto container = make_ref<Container>(std::move(plan), pids, ipc, std::move(zygote).value());
    auto group = spawn_pause(container);
    if (!group.ok()) {
        return Failure{group.error().value(), "start the pod's pause process"};
    }
    TaskLife::start(**group);
    return container;
}

}  // namespace moat::kernel
