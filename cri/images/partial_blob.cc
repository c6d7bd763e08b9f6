#include "cri/images/partial_blob.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "cri/base/files.h"

namespace moat::cri {

namespace {

constexpr time_t kMaxAge = 24 * 3600;

}  // namespace

PartialBlob::~PartialBlob() {
    if (fd_ && (!shared_ || size_ == 0)) {
        unlink(path_.c_str());
    }
}

void PartialBlob::discard() { unlink(path_.c_str()); }

Status PartialBlob::resume(int64_t length) {
    struct stat st {};
    if (fstat(fd_.get(), &st) != 0) {
        return Error::from_errno(errno, "stat " + path_);
    }
    if (st.st_size > length) {
        return restart();
    }
    std::string buffer(1 << 20, '\0');
    for (;;) {
        const ssize_t n = pread(fd_.get(), buffer.data(), buffer.size(), size_);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "read " + path_);
        }
        if (n == 0) {
            break;
        }
        sum_.update({buffer.data(), static_cast<size_t>(n)});
        size_ += n;
    }
    resumed_ = size_ > 0;
    return {};
}

Status PartialBlob::append(std::string_view data) {
    while (!data.empty()) {
        const ssize_t n = pwrite(fd_.get(), data.data(), data.size(), size_);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "write " + path_);
        }
        sum_.update(data.substr(0, static_cast<size_t>(n)));
        size_ += n;
        data.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

Status PartialBlob::restart() {
    if (ftruncate(fd_.get(), 0) != 0) {
        return Error::from_errno(errno, "truncate " + path_);
    }
    size_ = 0;
    resumed_ = false;
    sum_ = Sha256();
    return {};
}

Result<PartialBlob> PartialBlobs::open(const std::string& digest) {
    const std::string path = directory_ + "/" + digest_hex(digest);
    for (;;) {
        ScopedFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (!fd) {
            return Error::from_errno(errno, "create " + path);
        }
        if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
            break;
        }
        // A trim may have removed the name before we had the lock.
        struct stat st {};
        struct stat named {};
        if (fstat(fd.get(), &st) == 0 && stat(path.c_str(), &named) == 0 &&
            st.st_ino == named.st_ino) {
            return PartialBlob(path, std::move(fd), true);
        }
    }
    // Another process is at it: a file of our own.
    std::string own = path + ".XXXXXX";
    ScopedFd fd(mkostemp(own.data(), O_CLOEXEC));
    if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        return Error::from_errno(errno, "create " + own);
    }
    return PartialBlob(own, std::move(fd), false);
}

void PartialBlobs::trim() {
    struct Found {
        std::string path;
        time_t time;
        uint64_t bytes;
    };
    std::vector<Found> files;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory_.c_str()), closedir);
    while (const dirent* entry = dir == nullptr ? nullptr : readdir(dir.get())) {
        const std::string path = directory_ + "/" + entry->d_name;
        struct stat st {};
        if (entry->d_name[0] != '.' && lstat(path.c_str(), &st) == 0) {
            files.push_back({path, st.st_mtime, static_cast<uint64_t>(st.st_blocks) * 512});
        }
    }
    std::sort(files.begin(), files.end(),
              [](const Found& a, const Found& b) { return a.time > b.time; });
    const time_t now = time(nullptr);
    uint64_t total = 0;
    for (const Found& file : files) {
        total += file.bytes;
        // One with a dot belonged to a process that is gone, or to one that has it locked.
        const bool stray = file.path.find('.', directory_.size()) != std::string::npos;
        if (total <= max_bytes_ && file.time > now - kMaxAge && !stray) {
            continue;
        }
        const ScopedFd fd(::open(file.path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
        if (fd && flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
            unlink(file.path.c_str());
            total -= file.bytes;
        }
    }
}

}  // namespace moat::cri
