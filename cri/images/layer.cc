#include "cri/images/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cri/base/files.h"
#include "cri/base/rooted.h"
#include "cri/images/blob_reader.h"
#include "cri/images/tree.h"
#include "cri/images/utf8_locale.h"

namespace moat::cri {

namespace {

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
/// Deeper trees are no images; walks of ours hold a descriptor or two per level.
constexpr size_t kMaxDepth = 200;
/// As the kernel (path_resolution(7)).
constexpr int kMaxLinks = 40;
/// As the kernel allows one value (XATTR_SIZE_MAX).
constexpr size_t kMaxAttributes = 64 << 10;

/// "a/b/c" -> ("a/b", "c"); "c" -> ("", "c").
std::pair<std::string, std::string> split(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? std::pair{std::string(), path}
                                      : std::pair{path.substr(0, slash), path.substr(slash + 1)};
}

/// A link's target as a path from the root, "." and ".." taken out; ".." ends at the root.
std::string in_root(const std::string& path) {
    std::vector<std::string> parts;
    for (size_t at = 0; at < path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string part = path.substr(at, end - at);
        at = end + 1;
        if (part == "..") {
            if (!parts.empty()) {
                parts.pop_back();
            }
        } else if (!part.empty() && part != ".") {
            parts.push_back(part);
        }
    }
    std::string joined;
    for (const std::string& part : parts) {
        joined += joined.empty() ? part : "/" + part;
    }
    return joined;
}

class Unpacker {
  public:
    Unpacker(BlobReader& reader, ScopedFd root, const UnpackLimits& limits)
        : reader_(reader), root_(std::move(root)), limits_(limits) {}

    Result<UnpackedLayer> run();

  private:
    Result<std::string_view> read();
    static la_ssize_t read_callback(archive*, void* self, const void** buffer);
    Status member(archive_entry* entry);
    Status directory(archive_entry* entry, const std::string& path);
    Status regular(archive_entry* entry, int parent, const std::string& name);
    Status hard_link(archive_entry* entry, int parent, const std::string& name,
                     const std::string& path);
    Result<int> parent_of(const std::string& path);
    Result<ScopedFd> directory_at(const std::string& path, int links_left);
    Result<std::string> path_of(int fd, const std::string& name) const;
    Status attributes(archive_entry* entry, int fd);
    Status make_room(int parent, const std::string& name);

    BlobReader& reader_;
    ScopedFd root_;
    const UnpackLimits& limits_;
    uint64_t bytes_ = 0;
    uint64_t members_ = 0;
    archive* archive_ = nullptr;
    Status read_error_;
    UnpackedLayer layer_;
    std::set<std::string> implied_;
    std::map<std::string, timespec> directory_times_;
    std::string cached_path_;
    ScopedFd cached_parent_;
};

/// The next of the tar's bytes, within the limits: a few bytes of a blob may unpack to any number.
Result<std::string_view> Unpacker::read() {
    const std::string_view data = TRY(reader_.next());
    bytes_ += data.size();
    if (limits_.unpacked != nullptr) {
        *limits_.unpacked += data.size();
    }
    if (bytes_ > limits_.bytes) {
        return Error(EFBIG, "it unpacks to more than the limit of " +
                                std::to_string(limits_.bytes) + " bytes");
    }
    if (limits_.cancelled && limits_.cancelled()) {
        return Error(ECANCELED, "the client has gone");
    }
    return data;
}

la_ssize_t Unpacker::read_callback(archive* a, void* self, const void** buffer) {
    auto& unpacker = *static_cast<Unpacker*>(self);
    const auto data = unpacker.read();
    if (!data.ok()) {
        unpacker.read_error_ = data.error();
        archive_set_error(a, data.error().code(), "%s", data.error().message().c_str());
        return -1;
    }
    *buffer = data->data();
    return static_cast<la_ssize_t>(data->size());
}

Result<UnpackedLayer> Unpacker::run() {
    const Utf8Locale locale;
    const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
    archive_ = reader.get();
    archive_read_support_format_tar(archive_);
    archive_read_support_format_empty(archive_);
    if (archive_read_open(archive_, this, nullptr, read_callback, nullptr) != ARCHIVE_OK) {
        TRY(read_error_);
        return Error(EBADMSG, std::string("not a tar: ") + archive_error_string(archive_));
    }
    for (;;) {
        archive_entry* entry = nullptr;
        const int code = archive_read_next_header(archive_, &entry);
        if (code == ARCHIVE_EOF) {
            break;
        }
        if (code == ARCHIVE_RETRY) {
            continue;
        }
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
            TRY(read_error_);
            return Error(EBADMSG, std::string("tar: ") + archive_error_string(archive_));
        }
        if (++members_ > limits_.members) {
            return Error(EFBIG, "tar: more than the limit of " + std::to_string(limits_.members) +
                                    " members");
        }
        const char* name = archive_entry_pathname(entry);
        if (name == nullptr) {
            return Error(EINVAL, "tar: a member without a readable name");
        }
        TRY_STEP("member \"" + std::string(name) + "\"", member(entry));
    }
    // The diff id covers the padding behind the end mark, which libarchive need not have read.
    for (;;) {
        const std::string_view rest = TRY(read());
        if (rest.empty()) {
            break;
        }
    }
    // Last, for every file made in a directory moves its time.
    for (const auto& [path, time] : directory_times_) {
        const auto fd = open_in_root(root_.get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd.ok()) {
            const timespec times[2] = {time, time};
            futimens(fd->get(), times);
        }
    }
    layer_.changes.implied.assign(implied_.begin(), implied_.end());
    layer_.usage = TRY(tree_usage(root_.get()));
    return std::move(layer_);
}

/// The directory that holds `path`, made if need be; borrowed until the next call.
Result<int> Unpacker::parent_of(const std::string& path) {
    const std::string parent = split(path).first;
    if (!cached_parent_ || cached_path_ != parent) {
        cached_parent_ = TRY(directory_at(parent, kMaxLinks));
        cached_path_ = parent;
    }
    return cached_parent_.get();
}

/// The directory `path`, links on the way followed inside the layer's root. What is not there is
/// made, behind a link to nowhere as well: the layer below may have it, under the same name.
Result<ScopedFd> Unpacker::directory_at(const std::string& path, int links_left) {
    auto fd = open_in_root(root_.get(), path, O_RDONLY | O_DIRECTORY);
    if (fd.ok() || fd.error().code() != ENOENT) {
        return fd;
    }
    const auto [parent, name] = split(path);
    const ScopedFd above = TRY(directory_at(parent, links_left));
    if (mkdirat(above.get(), name.c_str(), 0755) == 0) {
        implied_.insert(TRY(path_of(above.get(), name)));
        return open_in_root(above.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    }
    if (errno != EEXIST) {
        return Error::from_errno(errno, "make its directory " + path);
    }
    char target[PATH_MAX];
    const ssize_t size = readlinkat(above.get(), name.c_str(), target, sizeof(target));
    if (size <= 0 || size == sizeof(target) || links_left == 0) {
        return Error(EINVAL, "its directory " + path + " leads nowhere");
    }
    const std::string link(target, static_cast<size_t>(size));
    const std::string base = link.front() == '/' ? "" : TRY(path_of(above.get(), ""));
    return directory_at(TRY(clean_member_name(in_root(base + link))), links_left - 1);
}

/// `name` in the open directory `fd` as a path from the layer's root without links. EINVAL: too
/// deep.
Result<std::string> Unpacker::path_of(int fd, const std::string& name) const {
    const auto whole = [](int of) {
        char path[PATH_MAX];
        const std::string link = "/proc/self/fd/" + std::to_string(of);
        const ssize_t n = readlink(link.c_str(), path, sizeof(path));
        return std::string(path, n > 0 ? static_cast<size_t>(n) : 0);
    };
    const std::string root = whole(root_.get());
    const std::string directory = whole(fd);
    if (root.empty() || directory.size() < root.size()) {
        return Error(EINVAL, "the place of " + name + " cannot be told");
    }
    if (directory.size() == root.size()) {
        return name;
    }
    const std::string path = directory.substr(root.size() + 1) + "/" + name;
    if (std::count(path.begin(), path.end(), '/') >= static_cast<ptrdiff_t>(kMaxDepth)) {
        return Error(EINVAL, "the name is too deep behind its links");
    }
    return path;
}

/// A later member of the same name wins.
Status Unpacker::make_room(int parent, const std::string& name) {
    struct stat st {};
    if (fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? Status() : Status(Error::from_errno(errno, "stat"));
    }
    TRY(remove_at(parent, name));
    return {};
}

Status Unpacker::attributes(archive_entry* entry, int fd) {
    const int64_t uid = archive_entry_uid(entry);
    const int64_t gid = archive_entry_gid(entry);
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX) {
        return Error(EINVAL, "owner " + std::to_string(uid) + ":" + std::to_string(gid) +
                                 " is out of range");
    }
    if (fchown(fd, static_cast<uid_t>(uid), static_cast<gid_t>(gid)) != 0) {
        return Error::from_errno(errno, "chown");
    }
    // After the chown, which clears the set-id bits and the file capabilities.
    if (fchmod(fd, archive_entry_perm(entry)) != 0) {
        return Error::from_errno(errno, "chmod");
    }
    archive_entry_xattr_reset(entry);
    const char* name = nullptr;
    const void* value = nullptr;
    size_t size = 0;
    size_t all = 0;
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
        const std::string_view key = name;
        if (key.rfind("user.", 0) != 0 && key != "security.capability") {
            continue;
        }
        all += key.size() + size;
        if (all > kMaxAttributes) {
            return Error(EINVAL, "extended attributes of more than 64 KiB");
        }
        if (fsetxattr(fd, name, value, size, 0) != 0 && errno != EOPNOTSUPP) {
            return Error::from_errno(errno, "set the attribute " + std::string(key));
        }
    }
    return {};
}

timespec mtime_of(archive_entry* entry) {
    return {.tv_sec = archive_entry_mtime(entry), .tv_nsec = archive_entry_mtime_nsec(entry)};
}

Status Unpacker::member(archive_entry* entry) {
    const std::string path = TRY(clean_member_name(archive_entry_pathname(entry)));
    const auto [parent_path, name] = split(path);
    if (name.rfind(kWhiteout, 0) == 0) {
        if (name == kOpaque) {
            layer_.changes.opaque.push_back(parent_path);
        } else if (name.rfind(".wh..wh.", 0) != 0) {  // others of that form are AUFS's own books
            const std::string hidden = name.substr(kWhiteout.size());
            if (hidden.empty() || hidden == "." || hidden == "..") {
                return Error(EINVAL, "a whiteout of no name");
            }
            layer_.changes.whiteouts.push_back(parent_path.empty() ? hidden
                                                                   : parent_path + "/" + hidden);
        }
        return {};
    }
    if (archive_entry_hardlink(entry) == nullptr && archive_entry_filetype(entry) == AE_IFDIR) {
        return directory(entry, path);
    }
    if (path.empty()) {
        return Error(EINVAL, "the root is not a directory");
    }
    const int parent = TRY(parent_of(path));
    if (archive_entry_hardlink(entry) != nullptr) {
        return hard_link(entry, parent, name, path);
    }
    switch (archive_entry_filetype(entry)) {
        case AE_IFREG:
            return regular(entry, parent, name);
        case AE_IFLNK: {
            const char* target = archive_entry_symlink(entry);
            if (target == nullptr || *target == '\0') {
                return Error(EINVAL, "a symbolic link without a target");
            }
            TRY(make_room(parent, name));
            if (symlinkat(target, parent, name.c_str()) != 0 ||
                fchownat(parent, name.c_str(), static_cast<uid_t>(archive_entry_uid(entry)),
                         static_cast<gid_t>(archive_entry_gid(entry)), AT_SYMLINK_NOFOLLOW) != 0) {
                return Error::from_errno(errno, "symlink");
            }
            const timespec times[2] = {mtime_of(entry), mtime_of(entry)};
            utimensat(parent, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
            return {};
        }
        case AE_IFIFO: {
            TRY(make_room(parent, name));
            if (mkfifoat(parent, name.c_str(), 0600) != 0 ||
                fchownat(parent, name.c_str(), static_cast<uid_t>(archive_entry_uid(entry)),
                         static_cast<gid_t>(archive_entry_gid(entry)), AT_SYMLINK_NOFOLLOW) != 0 ||
                fchmodat(parent, name.c_str(), archive_entry_perm(entry), 0) != 0) {
                return Error::from_errno(errno, "mkfifo");
            }
            const timespec times[2] = {mtime_of(entry), mtime_of(entry)};
            utimensat(parent, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
            return {};
        }
        case AE_IFCHR:
        case AE_IFBLK:
            spdlog::debug("layer: device node {} left out", path);
            return {};
        default:
            return Error(EINVAL, "a kind of file that no layer has");
    }
}

Status Unpacker::directory(archive_entry* entry, const std::string& path) {
    ScopedFd fd;
    int parent = -1;
    if (path.empty()) {
        fd = TRY(open_in_root(root_.get(), "", O_RDONLY | O_DIRECTORY));
    } else {
        parent = TRY(parent_of(path));
        const std::string name = split(path).second;
        struct stat st {};
        if (fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode)) {
            TRY(make_room(parent, name));
        }
        if (mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) {
            return Error::from_errno(errno, "mkdir");
        }
        fd.reset(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!fd) {
            return Error::from_errno(errno, "open the directory");
        }
    }
    TRY(attributes(entry, fd.get()));
    const std::string real = path.empty() ? path : TRY(path_of(parent, split(path).second));
    implied_.erase(real);
    directory_times_[real] = mtime_of(entry);
    return {};
}

Status Unpacker::regular(archive_entry* entry, int parent, const std::string& name) {
    TRY(make_room(parent, name));
    const ScopedFd fd(
        openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) {
        return Error::from_errno(errno, "create");
    }
    for (;;) {
        const void* data = nullptr;
        size_t size = 0;
        la_int64_t offset = 0;
        const int code = archive_read_data_block(archive_, &data, &size, &offset);
        if (code == ARCHIVE_EOF) {
            break;
        }
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
            TRY(read_error_);
            return Error(EBADMSG, std::string("tar: ") + archive_error_string(archive_));
        }
        while (size > 0) {
            const ssize_t n = pwrite(fd.get(), data, size, offset);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n < 0) {
                return Error::from_errno(errno, "write");
            }
            data = static_cast<const char*>(data) + n;
            size -= static_cast<size_t>(n);
            offset += n;
        }
    }
    // A sparse file may end in a hole.
    struct stat st {};
    const int64_t length = archive_entry_size(entry);
    if (fstat(fd.get(), &st) != 0 || (st.st_size < length && ftruncate(fd.get(), length) != 0)) {
        return Error::from_errno(errno, "set the length");
    }
    TRY(attributes(entry, fd.get()));
    const timespec times[2] = {mtime_of(entry), mtime_of(entry)};
    futimens(fd.get(), times);
    return {};
}

Status Unpacker::hard_link(archive_entry* entry, int parent, const std::string& name,
                           const std::string& path) {
    const std::string target = TRY(clean_member_name(archive_entry_hardlink(entry)));
    if (target.empty()) {
        return Error(EINVAL, "a hard link to the root");
    }
    if (target == path) {
        return Error(EINVAL, "a hard link to itself");
    }
    const auto [target_parent, target_name] = split(target);
    const auto directory = open_in_root(root_.get(), target_parent, O_PATH | O_DIRECTORY);
    struct stat st {};
    if (!directory.ok() ||
        fstatat(directory->get(), target_name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        // In a lower layer, then: settled when the layers are put together.
        layer_.changes.links.emplace_back(path, target);
        return {};
    }
    TRY(make_room(parent, name));
    if (linkat(directory->get(), target_name.c_str(), parent, name.c_str(), 0) != 0) {
        return Error::from_errno(errno, "hard link to " + target);
    }
    return {};
}

}  // namespace

Result<std::string> clean_member_name(const std::string& name) {
    if (name.size() >= 4096) {
        return Error(EINVAL, "the name is longer than 4095 bytes");
    }
    std::string clean;
    size_t depth = 0;
    size_t at = 0;
    while (at <= name.size()) {
        const size_t end = std::min(name.find('/', at), name.size());
        const std::string part = name.substr(at, end - at);
        at = end + 1;
        if (part.empty() || part == ".") {
            continue;
        }
        if (part == "..") {
            return Error(EINVAL, "\"..\" in the name: it leads out of the image");
        }
        if (part.size() > 255 || ++depth > kMaxDepth) {
            return Error(EINVAL, "the name is too deep or has a component of more than 255 bytes");
        }
        clean += clean.empty() ? part : "/" + part;
    }
    return clean;
}

Result<UnpackedLayer> unpack_layer(BlobReader& reader, const std::string& directory,
                                   const UnpackLimits& limits) {
    ScopedFd root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return Error::from_errno(errno, "open " + directory);
    }
    return Unpacker(reader, std::move(root), limits).run();
}

std::string encode_changes(const LayerChanges& changes) {
    // Names may be any bytes; JSON strings may not.
    const auto hex = [](const std::string& text) {
        static constexpr char kDigits[] = "0123456789abcdef";
        std::string out;
        for (const char c : text) {
            out += kDigits[static_cast<unsigned char>(c) >> 4];
            out += kDigits[static_cast<unsigned char>(c) & 15];
        }
        return out;
    };
    nlohmann::json json = {{"whiteouts", nlohmann::json::array()},
                           {"opaque", nlohmann::json::array()},
                           {"implied", nlohmann::json::array()},
                           {"links", nlohmann::json::array()}};
    for (const auto& path : changes.whiteouts) {
        json["whiteouts"].push_back(hex(path));
    }
    for (const auto& path : changes.opaque) {
        json["opaque"].push_back(hex(path));
    }
    for (const auto& path : changes.implied) {
        json["implied"].push_back(hex(path));
    }
    for (const auto& [name, target] : changes.links) {
        json["links"].push_back({hex(name), hex(target)});
    }
    return json.dump();
}

Result<LayerChanges> decode_changes(const std::string& text) {
    try {
        const auto bytes = [](const std::string& hex) {
            std::string out;
            for (size_t i = 0; i + 1 < hex.size(); i += 2) {
                out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
            }
            return out;
        };
        const auto json = nlohmann::json::parse(text);
        LayerChanges changes;
        for (const std::string path : json.at("whiteouts")) {
            changes.whiteouts.push_back(bytes(path));
        }
        for (const std::string path : json.at("opaque")) {
            changes.opaque.push_back(bytes(path));
        }
        for (const std::string path : json.at("implied")) {
            changes.implied.push_back(bytes(path));
        }
        for (const auto& link : json.at("links")) {
            changes.links.emplace_back(bytes(link.at(0)), bytes(link.at(1)));
        }
        return changes;
    } catch (const std::exception& e) {
        return internal_error(std::string("changes of a layer: ") + e.what());
    }
}

}  // namespace moat::cri
