#include "cri/images/tar_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <map>
#include <set>
#include <vector>

#include "cri/base/files.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

using EntryPtr = std::unique_ptr<archive_entry, void (*)(archive_entry*)>;

EntryPtr make_entry(const std::string& name, unsigned type, int64_t size) {
    EntryPtr entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_filetype(entry.get(), type);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_size(entry.get(), size);
    archive_entry_set_mtime(entry.get(), 0, 0);
    archive_entry_set_uid(entry.get(), 0);
    archive_entry_set_gid(entry.get(), 0);
    return entry;
}

}  // namespace

TarWriter::TarWriter(int fd) : fd_(fd), archive_(archive_write_new()) {
    archive_write_set_format_pax_restricted(archive_);
    // The one form that Go's readers know.
    (void)archive_write_set_format_option(archive_, "pax", "xattrheader", "SCHILY");
    archive_write_set_bytes_per_block(archive_, 256 << 10);
    archive_write_set_bytes_in_last_block(archive_, 512);
    archive_write_open(archive_, this, nullptr, write_callback, nullptr);
}

TarWriter::~TarWriter() { archive_write_free(archive_); }

long TarWriter::write_callback(archive* a, void* self, const void* data, size_t size) {
    auto& writer = *static_cast<TarWriter*>(self);
    const std::string_view bytes(static_cast<const char*>(data), size);
    const Status written = write_all(writer.fd_, bytes, "the archive");
    if (!written.ok()) {
        writer.error_ = written.error().code();
        archive_set_error(a, writer.error_, "%s", written.error().message().c_str());
        return -1;
    }
    writer.sum_.update(bytes);
    writer.size_ += static_cast<int64_t>(size);
    return static_cast<long>(size);
}

Error TarWriter::failure(const std::string& name) {
    const char* why = archive_error_string(archive_);
    return Error(error_ != 0 ? error_ : EIO,
                 "write member \"" + name + "\": " + (why == nullptr ? "unknown" : why));
}

Status TarWriter::member(archive_entry* entry, int fd) {
    const std::string name = archive_entry_pathname(entry);
    const int code = archive_write_header(archive_, entry);
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
        return failure(name);
    }
    int64_t left = fd < 0 ? 0 : archive_entry_size(entry);
    std::vector<char> buffer(256 << 10);
    while (left > 0) {
        const ssize_t n = read(fd, buffer.data(), std::min<size_t>(buffer.size(), left));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return Error(n < 0 ? errno : EIO, "read \"" + name + "\": " +
                                                  (n < 0 ? strerror(errno) : "it is shorter now"));
        }
        if (archive_write_data(archive_, buffer.data(), static_cast<size_t>(n)) != n) {
            return failure(name);
        }
        left -= n;
    }
    return {};
}

Status TarWriter::file(const std::string& name, std::string_view data) {
    const EntryPtr entry = make_entry(name, AE_IFREG, static_cast<int64_t>(data.size()));
    TRY(member(entry.get(), -1));
    if (archive_write_data(archive_, data.data(), data.size()) !=
        static_cast<la_ssize_t>(data.size())) {
        return failure(name);
    }
    return {};
}

Status TarWriter::file(const std::string& name, int fd, int64_t size) {
    const EntryPtr entry = make_entry(name, AE_IFREG, size);
    return member(entry.get(), fd);
}

Status TarWriter::finish() {
    return archive_write_close(archive_) == ARCHIVE_OK ? Status() : Status(failure("end"));
}

namespace {

/// What becomes a member, by its name in the layer.
struct Member {
    enum class Kind { kFile, kWhiteout, kLink } kind = Kind::kFile;
    std::string target;  ///< of a link into a lower layer
};

Status collect(int directory_fd, const std::string& path, std::map<std::string, Member>& members) {
    ScopedFd fd(openat(directory_fd, path.empty() ? "." : path.c_str(),
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    DIR* listing = fd ? fdopendir(fd.get()) : nullptr;
    if (listing == nullptr) {
        return Error::from_errno(errno, "open \"" + path + "\"");
    }
    (void)fd.release();
    const std::unique_ptr<DIR, int (*)(DIR*)> close(listing, closedir);
    while (const dirent* item = readdir(listing)) {
        const std::string name = item->d_name;
        if (name == "." || name == "..") {
            continue;
        }
        const std::string whole = path.empty() ? name : path + "/" + name;
        members[whole] = {};
        struct stat st {};
        if (fstatat(directory_fd, whole.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
            return Error::from_errno(errno, "stat \"" + whole + "\"");
        }
        if (S_ISDIR(st.st_mode)) {
            TRY(collect(directory_fd, whole, members));
        }
    }
    return {};
}

void add_attributes(int fd, archive_entry* entry) {
    char names[64 << 10];
    const ssize_t size = flistxattr(fd, names, sizeof(names));
    std::set<std::string> sorted;
    for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(strlen(names + at)) + 1) {
        sorted.insert(names + at);
    }
    std::vector<char> value(64 << 10);
    for (const std::string& name : sorted) {
        if (name.rfind("user.", 0) != 0 && name != "security.capability") {
            continue;
        }
        const ssize_t n = fgetxattr(fd, name.c_str(), value.data(), value.size());
        if (n >= 0) {
            archive_entry_xattr_add_entry(entry, name.c_str(), value.data(),
                                          static_cast<size_t>(n));
        }
    }
}

class LayerWriter {
  public:
    LayerWriter(TarWriter& tar, int root) : tar_(tar), root_(root) {}

    Status write(const std::string& name, const Member& member) {
        if (member.kind == Member::Kind::kWhiteout) {
            return tar_.file(name, "");
        }
        if (member.kind == Member::Kind::kLink) {
            const EntryPtr entry = make_entry(name, AE_IFREG, 0);
            archive_entry_set_hardlink(entry.get(), member.target.c_str());
            return tar_.member(entry.get(), -1);
        }
        struct stat st {};
        if (fstatat(root_, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
            return Error::from_errno(errno, "stat");
        }
        return file(name, st);
    }

  private:
    Status file(const std::string& name, const struct stat& st) {
        const bool directory = S_ISDIR(st.st_mode);
        const EntryPtr entry = make_entry(directory ? name + "/" : name, st.st_mode & S_IFMT,
                                          S_ISREG(st.st_mode) ? st.st_size : 0);
        archive_entry_set_perm(entry.get(), st.st_mode & 07777);
        archive_entry_set_uid(entry.get(), st.st_uid);
        archive_entry_set_gid(entry.get(), st.st_gid);
        archive_entry_set_mtime(entry.get(), st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        // The trees of images are links to the same inodes: only names in this layer count.
        if (!directory && st.st_nlink > 1) {
            const auto [first, added] = first_names_.try_emplace({st.st_dev, st.st_ino}, name);
            if (!added) {
                archive_entry_set_size(entry.get(), 0);
                archive_entry_set_hardlink(entry.get(), first->second.c_str());
                return tar_.member(entry.get(), -1);
            }
        }
        if (S_ISLNK(st.st_mode)) {
            char target[PATH_MAX];
            const ssize_t n = readlinkat(root_, name.c_str(), target, sizeof(target) - 1);
            if (n < 0) {
                return Error::from_errno(errno, "read the link");
            }
            target[n] = 0;
            archive_entry_set_symlink(entry.get(), target);
            return tar_.member(entry.get(), -1);
        }
        if (S_ISFIFO(st.st_mode)) {
            return tar_.member(entry.get(), -1);
        }
        if (!directory && !S_ISREG(st.st_mode)) {
            return {};
        }
        const ScopedFd fd(openat(root_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
        if (!fd) {
            return Error::from_errno(errno, "open");
        }
        add_attributes(fd.get(), entry.get());
        return tar_.member(entry.get(), directory ? -1 : fd.get());
    }

    TarWriter& tar_;
    const int root_;
    std::map<std::pair<dev_t, ino_t>, std::string> first_names_;
};

std::string whiteout_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? ".wh." + path
                                      : path.substr(0, slash + 1) + ".wh." + path.substr(slash + 1);
}

}  // namespace

Status write_layer(TarWriter& tar, const std::string& directory, const LayerChanges& changes) {
    const ScopedFd root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return Error::from_errno(errno, "open " + directory);
    }
    std::map<std::string, Member> members;
    TRY(collect(root.get(), "", members));
    for (const std::string& path : changes.implied) {
        members.erase(path);
    }
    for (const std::string& path : changes.whiteouts) {
        members[whiteout_of(path)] = {Member::Kind::kWhiteout, ""};
    }
    for (const std::string& path : changes.opaque) {
        members[path.empty() ? ".wh..wh..opq" : path + "/.wh..wh..opq"] = {Member::Kind::kWhiteout,
                                                                           ""};
    }
    for (const auto& [name, target] : changes.links) {
        members[name] = {Member::Kind::kLink, target};
    }
    LayerWriter writer(tar, root.get());
    for (const auto& [name, member] : members) {
        TRY_STEP("member \"" + name + "\"", writer.write(name, member));
    }
    return {};
}

}  // namespace moat::cri
