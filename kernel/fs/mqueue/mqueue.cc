#include "kernel/fs/mqueue/mqueue.h"

#include "kernel/fs/registry.h"
#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

void register_mqueue() {
    static constexpr uint32_t kMqueueMagic = 0x19800202;
    register_file_system("mqueue", GuestMayMount::kYes,
                         [](const FileSystemRequest&) -> Result<RefPtr<FileSystem>> {
                             auto fs = make_ref<SyntheticFileSystem>("mqueue", kMqueueMagic);
                             fs->set_root(make_ref<StaticDirectory>(*fs, 01777));
                             return RefPtr<FileSystem>(std::move(fs));
                         });
}

}  // namespace moat::kernel
