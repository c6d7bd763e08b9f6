// Linux: fs/binfmt_elf.c.

#include "kernel/mm/elf.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include <algorithm>

#include "kernel/fs/vfs.h"
#include "kernel/platform/filter.h"
#include "kernel/platform/layout.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kPieBase = 0x555555554000;
constexpr uint64_t kInterpreterBase = 0x7ffff0000000;
/// Above the stub's area, below the end of the user half.
constexpr uint64_t kStackTop = 0x7ffffff00000;
constexpr uint64_t kLargestStack = 32 << 20;
constexpr int kExecutableFd = MOAT_LEND_FD;
constexpr int kInterpreterFd = MOAT_LEND_FD + 1;
constexpr uint64_t kAtMinSigStackSize = 51;  // AT_MINSIGSTKSZ

struct Segment {
    uint64_t address;
    uint64_t size;
};

struct Image {
    uint64_t base = 0;
    uint64_t entry = 0;
    uint64_t headers = 0;
    uint64_t header_count = 0;
    uint64_t start = UINT64_MAX;
    uint64_t end = 0;
    uint64_t code_start = 0;
    uint64_t code_end = 0;
    std::string interpreter;
    std::vector<platform::Order> orders;
    std::vector<Segment> zeros;  // tails of pages that a file's data only begins
};

uint64_t random_pages(unsigned bits) {
    uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value) {
        return 0;
    }
    return (value & ((uint64_t{1} << bits) - 1)) * kPageSize;
}

int protection_of(uint32_t flags) {
    return ((flags & PF_R) != 0 ? PROT_READ : 0) | ((flags & PF_W) != 0 ? PROT_WRITE : 0) |
           ((flags & PF_X) != 0 ? PROT_EXEC : 0);
}

Result<Image> plan_image(Task& task, File& file, int lent_fd, int64_t offset_shift, uint64_t base) {
    Elf64_Ehdr header;
    if (TRY(read_at(task, file, &header, sizeof header, 0)) != sizeof header ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_machine != EM_X86_64 || (header.e_type != ET_EXEC && header.e_type != ET_DYN) ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 || header.e_phnum > 128) {
        return Errno(ENOEXEC);
    }
    std::vector<Elf64_Phdr> program(header.e_phnum);
    const size_t program_size = program.size() * sizeof(Elf64_Phdr);
    if (TRY(read_at(task, file, program.data(), program_size,
                    static_cast<int64_t>(header.e_phoff))) != program_size) {
        return Errno(ENOEXEC);
    }
    Image image;
    image.base = header.e_type == ET_DYN ? base : 0;
    image.entry = image.base + header.e_entry;
    image.header_count = header.e_phnum;
    for (const Elf64_Phdr& p : program) {
        if (p.p_type == PT_INTERP) {
            if (p.p_filesz < 2 || p.p_filesz > PATH_MAX) {
                return Errno(ENOEXEC);
            }
            image.interpreter.resize(p.p_filesz);
            if (TRY(read_at(task, file, image.interpreter.data(), p.p_filesz,
                            static_cast<int64_t>(p.p_offset))) != p.p_filesz ||
                image.interpreter.back() != 0) {
                return Errno(ENOEXEC);
            }
            image.interpreter.resize(strlen(image.interpreter.c_str()));
        }
        if (p.p_type != PT_LOAD || p.p_memsz == 0) {
            continue;
        }
        if (p.p_filesz > p.p_memsz || p.p_vaddr > uint64_t{1} << 47 ||
            p.p_memsz > uint64_t{1} << 47 || (p.p_vaddr - p.p_offset) % kPageSize != 0) {
            return Errno(ENOEXEC);
        }
        const uint64_t address = image.base + p.p_vaddr;
        const uint64_t start = page_down(address);
        const uint64_t file_end = page_up(address + p.p_filesz);
        const uint64_t memory_end = page_up(address + p.p_memsz);
        if (!is_clear_of_stub(start, memory_end - start) || start < kPageSize) {
            return Errno(ENOEXEC);
        }
        if (header.e_phoff >= p.p_offset && header.e_phoff < p.p_offset + p.p_filesz) {
            image.headers = address + (header.e_phoff - p.p_offset);
        }
        const int protection = protection_of(p.p_flags);
        uint64_t mapped_to = start;
        if (p.p_filesz != 0) {
            const uint64_t offset =
                p.p_offset - (address - start) + static_cast<uint64_t>(offset_shift);
            image.orders.push_back(
                {SYS_mmap,
                 {start, file_end - start, static_cast<uint64_t>(protection),
                  MAP_PRIVATE | MAP_FIXED_NOREPLACE, static_cast<uint64_t>(lent_fd), offset}});
            mapped_to = file_end;
            if (p.p_memsz > p.p_filesz && (protection & PROT_WRITE) != 0 &&
                file_end > address + p.p_filesz) {
                image.zeros.push_back({address + p.p_filesz, file_end - (address + p.p_filesz)});
            }
        }
        if (memory_end > mapped_to) {
            image.orders.push_back(
                {SYS_mmap,
                 {mapped_to, memory_end - mapped_to, static_cast<uint64_t>(protection),
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~uint64_t{0}, 0}});
        }
        image.start = std::min(image.start, start);
        image.end = std::max(image.end, address + p.p_memsz);
        if ((protection & PROT_EXEC) != 0) {
            image.code_start = address;
            image.code_end = address + p.p_filesz;
        }
    }
    if (image.orders.empty()) {
        return Errno(ENOEXEC);
    }
    return image;
}

/// Strings, auxiliary vector, environment and arguments as the ABI wants them (System V ABI 3.4.1).
class InitialStack {
  public:
    explicit InitialStack(uint64_t top) : top_(top) {}

    size_t add_string(const std::string& text) { return add(text.c_str(), text.size() + 1); }
    size_t add(const void* data, size_t size) {
        const size_t at = strings_.size();
        strings_.append(static_cast<const char*>(data), size);
        return at;
    }
    uint64_t strings_at() const { return (top_ - strings_.size()) & ~uint64_t{15}; }
    uint64_t address_of(size_t offset) const { return strings_at() + offset; }
    void push(uint64_t word) { words_.push_back(word); }
    uint64_t pointer() const { return (strings_at() - words_.size() * 8) & ~uint64_t{15}; }
    /// The bytes from pointer() on.
    std::string bytes() const {
        std::string image(reinterpret_cast<const char*>(words_.data()), words_.size() * 8);
        image.resize(strings_at() - pointer());
        return image + strings_;
    }
    size_t string_bytes() const { return strings_.size(); }

  private:
    uint64_t top_;
    std::string strings_;
    std::vector<uint64_t> words_;
};

/// The order that tells the host what a process' address space looks like: where its heap begins,
/// for brk(2), and its arguments, for those who look at it with the node's ps(1).
platform::Order host_layout_order(const platform::HostThread& thread,
                                  const AddressSpace::Layout& layout) {
    prctl_mm_map map{};
    // The host wants some code, even of an image that has none.
    map.start_code = layout.code_start != 0 ? layout.code_start : layout.brk_start;
    map.end_code = std::max<uint64_t>(layout.code_end, map.start_code + 1);
    map.start_data = map.end_data = map.end_code;
    map.start_brk = map.brk = layout.brk_start;
    map.start_stack = layout.stack_top;
    map.arg_start = layout.arg_start, map.arg_end = layout.arg_end;
    map.env_start = layout.env_start, map.env_end = layout.env_end;
    map.exe_fd = ~0u;
    static_assert(sizeof map <= sizeof(platform::Slot::marshal));
    memcpy(const_cast<uint8_t*>(thread.slot().marshal), &map, sizeof map);
    const uint64_t address = platform::slot_address(thread.slot_index()) + MOAT_S_MARSHAL;
    return {SYS_prctl, {PR_SET_MM, PR_SET_MM_MAP, address, sizeof map, 0}};
}

}  // namespace

Result<LoadedImage> load_image(Task& task, const LoadRequest& request) {
    File& file = *request.executable;
    const auto source = TRY(file.map_source(task, PROT_READ | PROT_EXEC, false));
    const uint64_t slide = request.randomize ? random_pages(24) : 0;
    Image image = TRY(plan_image(task, file, kExecutableFd, source.offset_shift, kPieBase + slide));

    RefPtr<File> interpreter_file;
    Image interpreter;
    int interpreter_fd = -1;
    uint64_t entry = image.entry;
    if (!image.interpreter.empty()) {
        interpreter_file = TRY(open_executable(task, kCwd, image.interpreter, 0));
        const auto mapped = TRY(interpreter_file->map_source(task, PROT_READ | PROT_EXEC, false));
        interpreter_fd = mapped.host_fd;
        const uint64_t base = kInterpreterBase + (request.randomize ? random_pages(14) : 0);
        auto planned =
            plan_image(task, *interpreter_file, kInterpreterFd, mapped.offset_shift, base);
        if (!planned.ok()) {
            return Errno(planned.error() == ENOEXEC ? ELIBBAD : planned.error().value());
        }
        interpreter = std::move(planned).value();
        entry = interpreter.entry;
    }

    const uint64_t stack_size =
        page_up(std::clamp<uint64_t>(request.stack_limit, 128 << 10, kLargestStack));
    const uint64_t stack_top = kStackTop - (request.randomize ? random_pages(8) : 0);
    InitialStack stack(stack_top - 64);
    std::vector<size_t> argument_offsets, environment_offsets;
    for (const auto& text : request.arguments) {
        argument_offsets.push_back(stack.add_string(text));
    }
    const size_t arguments_end = stack.string_bytes();
    for (const auto& text : request.environment) {
        environment_offsets.push_back(stack.add_string(text));
    }
    const size_t environment_end = stack.string_bytes();
    const size_t name_offset = stack.add_string(request.path);
    const size_t platform_offset = stack.add_string("x86_64");
    char random_bytes[16];
    if (::getrandom(random_bytes, sizeof random_bytes, 0) != sizeof random_bytes) {
        return Errno(EIO);
    }
    const size_t random_offset = stack.add(random_bytes, sizeof random_bytes);
    if (stack.string_bytes() > stack_size / 4 * 3) {
        return Errno(E2BIG);
    }
    stack.push(request.arguments.size());
    for (const size_t offset : argument_offsets) {
        stack.push(stack.address_of(offset));
    }
    stack.push(0);
    for (const size_t offset : environment_offsets) {
        stack.push(stack.address_of(offset));
    }
    stack.push(0);
    std::vector<uint64_t> auxv = {AT_SYSINFO_EHDR,
                                  platform::vdso_address(),
                                  AT_HWCAP,
                                  ::getauxval(AT_HWCAP),
                                  AT_PAGESZ,
                                  kPageSize,
                                  AT_CLKTCK,
                                  100,
                                  AT_PHDR,
                                  image.headers,
                                  AT_PHENT,
                                  sizeof(Elf64_Phdr),
                                  AT_PHNUM,
                                  image.header_count,
                                  AT_BASE,
                                  interpreter.base,
                                  AT_FLAGS,
                                  0,
                                  AT_ENTRY,
                                  image.entry,
                                  AT_UID,
                                  request.uid,
                                  AT_EUID,
                                  request.euid,
                                  AT_GID,
                                  request.gid,
                                  AT_EGID,
                                  request.egid,
                                  AT_SECURE,
                                  request.secure ? 1u : 0u,
                                  AT_RANDOM,
                                  stack.address_of(random_offset),
                                  AT_HWCAP2,
                                  ::getauxval(AT_HWCAP2),
                                  AT_EXECFN,
                                  stack.address_of(name_offset),
                                  AT_PLATFORM,
                                  stack.address_of(platform_offset),
                                  kAtMinSigStackSize,
                                  ::getauxval(kAtMinSigStackSize),
                                  AT_NULL,
                                  0};
    for (const uint64_t word : auxv) {
        stack.push(word);
    }
    const std::string stack_bytes = stack.bytes();
    if (stack_bytes.size() + (16 << 10) > stack_size) {
        return Errno(E2BIG);
    }

    AddressSpace::Layout layout;
    layout.brk_start = page_up(image.end) + (request.randomize ? random_pages(13) : 0);
    layout.brk = layout.brk_mapped_end = layout.brk_start;
    layout.stack_top = stack_top;
    layout.stack_bottom = stack_top - stack_size;
    layout.arg_start = stack.address_of(0);
    layout.arg_end = stack.address_of(arguments_end);
    layout.env_start = layout.arg_end;
    layout.env_end = stack.address_of(environment_end);
    layout.code_start = image.code_start;
    layout.code_end = image.code_end;
    layout.auxv = std::move(auxv);

    std::vector<platform::Order> orders = std::move(image.orders);
    orders.insert(orders.end(), interpreter.orders.begin(), interpreter.orders.end());
    orders.push_back(
        {SYS_mmap,
         {stack_top - stack_size, stack_size, PROT_READ | PROT_WRITE,
          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, ~uint64_t{0}, 0}});
    orders.push_back({SYS_close, {static_cast<uint64_t>(kExecutableFd)}});
    if (interpreter_fd >= 0) {
        orders.push_back({SYS_close, {static_cast<uint64_t>(kInterpreterFd)}});
    }

    LoadedImage loaded;
    const auto process = TRY(task.container().zygote().spawn_from_zygote());
    loaded.thread = process->take_parked();
    if (!loaded.thread) {
        return Errno(EAGAIN);
    }
    loaded.mm = make_ref<AddressSpace>(process);  // kills the process if we fail from here on
    if (platform::host_keeps_heap()) {
        orders.push_back(host_layout_order(*loaded.thread, layout));
    }
    auto& listener = loaded.thread->listener();
    if (interpreter_fd >= 0) {
        TRY(listener.lend(loaded.thread->event_id, interpreter_fd, kInterpreterFd));
    }
    for (size_t i = 0; i < orders.size(); i += MOAT_ORDER_COUNT) {
        const size_t n = std::min<size_t>(MOAT_ORDER_COUNT, orders.size() - i);
        const auto some = std::span(orders).subspan(i, n);
        const int64_t result = TRY(i == 0 ? loaded.thread->run_orders_with(source.host_fd, some)
                                          : loaded.thread->run_orders(some));
        if (result < 0 && result >= -4095) {
            return Errno(result == -EEXIST ? ENOMEM : static_cast<int>(-result));
        }
    }
    static const char kZeros[kPageSize] = {};
    for (const Image* part : {&image, &interpreter}) {
        for (const Segment& zero : part->zeros) {
            if (loaded.mm->write(GuestAddr{zero.address}, kZeros, zero.size) != zero.size) {
                return Errno(EFAULT);
            }
        }
    }
    if (loaded.mm->write(GuestAddr{stack.pointer()}, stack_bytes.data(), stack_bytes.size()) !=
        stack_bytes.size()) {
        return Errno(EFAULT);
    }
    loaded.mm->set_executable(request.executable);
    // From here on the address space holds it; interpreters may be replaced while they run.
    request.executable->release_inode();
    if (interpreter_file) {
        interpreter_file->release_inode();
    }
    loaded.mm->note_mapped_file(source.host_fd, request.executable);
    if (interpreter_fd >= 0) {
        loaded.mm->note_mapped_file(interpreter_fd, interpreter_file);
    }

    loaded.mm->set_layout(std::move(layout));

    loaded.registers.rip = entry;
    loaded.registers.rsp = stack.pointer();
    loaded.registers.eflags = 0x202;
    loaded.registers.segments = arch::kUserSegments;
    return loaded;
}

}  // namespace moat::kernel
