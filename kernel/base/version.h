#pragma once

/// moat's own version, and the Linux release whose interfaces the guest kernel follows. Everything
/// that tells a guest what kernel it runs on (uname(2), /proc/version, the kernel log) says this.
#define MOAT_VERSION "0.1.0"
#define MOAT_LINUX_RELEASE "6.6.0-moat"

namespace moat {

inline constexpr char kVersion[] = MOAT_VERSION;
inline constexpr char kSysname[] = "Linux";
inline constexpr char kRelease[] = MOAT_LINUX_RELEASE;
inline constexpr char kKernelVersion[] = "#1 SMP moat " MOAT_VERSION;
inline constexpr char kMachine[] = "x86_64";
/// The line of /proc/version, without its newline.
inline constexpr char kProcVersion[] =
    "Linux version " MOAT_LINUX_RELEASE " (moat-sentry) #1 SMP moat " MOAT_VERSION;

}  // namespace moat
