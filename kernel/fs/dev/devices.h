#pragma once

#include <cstdint>

#include "kernel/base/ref_ptr.h"

namespace moat::kernel {

class File;

/// Registers the memory devices (major 1: null, zero, full, random, urandom, kmsg) and the file
/// systems "dev" and "devtmpfs". At boot.
void register_devices();

/// A description of /dev/null, for standard streams that go nowhere.
RefPtr<File> make_null_file(uint32_t flags);
/// mmap(2) of /dev/zero is anonymous memory, private or shared; its map_source() gives ENODEV, so
/// the caller asks this first.
bool is_zero_device(const File& file);

}  // namespace moat::kernel
