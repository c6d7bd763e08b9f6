#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace hostile {

/// The part of the address space under attack: in the sentry, where its stub lives.
struct Range {
    uint64_t base;
    uint64_t size;
    uint64_t end() const { return base + size; }
};

/// A line of /proc/self/maps.
struct Area {
    uint64_t start, end;
    bool readable, writable, executable;
    std::string name;
};
std::vector<Area> read_areas();
/// Pages in the range that /proc/self/maps does not show but that can be read or written: where a
/// sentry hides its stub. Found by trying, so only while the process has one thread.
std::vector<Area> find_hidden_areas(Range range);

/// The attacks. Each runs in a process of its own that is not expected to survive; what counts is
/// how everybody else fares. They return or die; a return ends the process with 0.

/// Forks `count` processes that stay until their parent's end, and goes on where a limit stops it.
void fork_without_end(long count);
/// Overwrites every writable mapping in the range again and again, while other threads start and
/// end, so that whatever the stub keeps there is used meanwhile.
void scribble(Range range, unsigned pattern);
/// Jumps to one address with chosen registers: an attempt to make a call from inside the stub.
[[noreturn]] void jump(uint64_t address, long number, const long* args);
/// Addresses in the range, hidden or not, that hold a system call instruction, or, where nothing
/// can be read, a sample of all its addresses.
std::vector<uint64_t> jump_targets(Range range);
/// int 0x80 with the numbers of the 32-bit table: getpid, fork, mmap and an unknown one.
void int80();
/// The numbers of the x32 table through the syscall instruction.
void x32();
/// A frame made by hand, "returned" to from a system call instruction (the stub's, where one is
/// found), with all signals blocked; sets *spinning and spins. Only SIGKILL can end it then.
[[noreturn]] void block_signals_and_spin(uint64_t syscall_instruction, std::atomic<int>* spinning);
/// munmap, mprotect, mremap, madvise and mmap over the range: all must be refused or harmless.
void remap(Range range);

}  // namespace hostile
