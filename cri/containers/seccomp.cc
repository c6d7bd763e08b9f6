#include "cri/containers/seccomp.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.pb.h"
#include "cri/base/files.h"
#include "cri/base/texts.h"
#include "cri/containers/default_seccomp.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

using nlohmann::json;

namespace {

constexpr size_t kLargestProfile = 1 << 20;
constexpr char kLocalhost[] = "localhost/";

/// A regular file of at most kLargestProfile bytes; whoever may write pods chooses among the files
/// that the node's owner put there, and nothing else may come of a wrong name than an error.
Result<std::string> read_profile(const std::string& path, const std::string& where) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!fd) {
        return invalid_argument(where + ": open " + path + ": " + strerror(errno));
    }
    struct stat st {};
    if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) ||
        static_cast<size_t>(st.st_size) > kLargestProfile) {
        return invalid_argument(where + ": " + path + ": not a regular file of at most 1 MiB");
    }
    std::string text(static_cast<size_t>(st.st_size), '\0');
    const ssize_t n = pread(fd.get(), text.data(), text.size(), 0);
    if (n != static_cast<ssize_t>(text.size())) {
        return invalid_argument(where + ": read " + path);
    }
    return text;
}

Result<json> localhost_profile(const std::string& name, const std::string& where) {
    const std::string path =
        name.rfind(kLocalhost, 0) == 0 ? name.substr(sizeof kLocalhost - 1) : name;
    TRY(check_absolute_path(path, where + ": localhost profile"));
    const std::string text = TRY(read_profile(path, where));
    json profile = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!profile.is_object()) {
        return invalid_argument(where + ": " + path + ": not a JSON object");
    }
    return profile;
}

}  // namespace

Result<std::optional<json>> seccomp_profile(const SeccompRequest& request,
                                            const std::vector<std::string>& bounding) {
    const std::optional<json> none;
    if (request.profile != nullptr) {
        switch (request.profile->profile_type()) {
            case api::SecurityProfile::Unconfined:
                return none;
            case api::SecurityProfile::RuntimeDefault:
                return std::optional<json>(default_seccomp(bounding));
            case api::SecurityProfile::Localhost:
                return std::optional<json>(
                    TRY(localhost_profile(request.profile->localhost_ref(), request.field)));
            default:
                return invalid_argument(request.field + ": profile_type " +
                                        std::to_string(request.profile->profile_type()) +
                                        ": unknown");
        }
    }
    const std::string& path = request.deprecated_path;
    if (path.empty() || path == "unconfined") {
        return none;
    }
    if (path == "runtime/default" || path == "docker/default") {
        return std::optional<json>(default_seccomp(bounding));
    }
    if (path.rfind(kLocalhost, 0) == 0) {
        return std::optional<json>(TRY(localhost_profile(path, request.field)));
    }
    return invalid_argument(request.field + ": profile \"" + path +
                            "\": neither runtime/default nor localhost/PATH nor unconfined");
}

Status check_apparmor(const api::SecurityProfile* profile, const std::string& deprecated,
                      const std::string& field) {
    const bool named = profile != nullptr
                           ? profile->profile_type() == api::SecurityProfile::Localhost
                           : deprecated.rfind(kLocalhost, 0) == 0;
    if (named) {
        return not_supported(field + ": localhost profile \"" +
                             (profile != nullptr ? profile->localhost_ref() : deprecated) +
                             "\": AppArmor does not confine a sandboxed pod");
    }
    if (profile == nullptr && !deprecated.empty() && deprecated != "runtime/default" &&
        deprecated != "unconfined") {
        return invalid_argument(field + ": profile \"" + deprecated +
                                "\": neither runtime/default nor localhost/NAME nor unconfined");
    }
    return {};
}

}  // namespace moat::cri
