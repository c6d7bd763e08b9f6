#include "cri/containers/user.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "cri/base/rooted.h"

namespace moat::cri {

namespace {

constexpr size_t kMaxDatabase = 4 << 20;

/// Fields of one line, split at colons.
std::vector<std::string_view> fields(std::string_view line) {
    std::vector<std::string_view> result;
    for (;;) {
        const size_t colon = line.find(':');
        result.push_back(line.substr(0, colon));
        if (colon == std::string_view::npos) {
            return result;
        }
        line.remove_prefix(colon + 1);
    }
}

/// Calls `use(fields)` for each line with at least `least` fields until it answers true.
template <typename F>
void each_line(std::string_view text, size_t least, F use) {
    while (!text.empty()) {
        const size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        const auto parts = fields(line);
        if (parts.size() >= least && use(parts)) {
            return;
        }
    }
}

std::optional<uint32_t> number(std::string_view text) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    // (uid_t)-1 means "unchanged" to setuid(2)'s relatives and is nobody's id.
    if (error != std::errc() || end != text.data() + text.size() || value == UINT32_MAX) {
        return std::nullopt;
    }
    return value;
}

Result<uint32_t> id_of(int64_t value, const char* field) {
    if (value < 0 || value >= int64_t{UINT32_MAX}) {
        return invalid_argument(std::string(field) + ": " + std::to_string(value) +
                                " is no user or group id");
    }
    return static_cast<uint32_t>(value);
}

struct Account {
    std::string name;
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::string home;
};

template <typename Matches>
std::optional<Account> find_account(std::string_view passwd, Matches matches) {
    std::optional<Account> found;
    each_line(passwd, 6, [&](const std::vector<std::string_view>& f) {
        const auto uid = number(f[2]);
        const auto gid = number(f[3]);
        if (!uid || !gid || !matches(f[0], *uid)) {
            return false;
        }
        found = Account{std::string(f[0]), *uid, *gid, std::string(f[5])};
        return true;
    });
    return found;
}

std::optional<uint32_t> find_group(std::string_view group, std::string_view name) {
    std::optional<uint32_t> found;
    each_line(group, 3, [&](const std::vector<std::string_view>& f) {
        if (f[0] == name) {
            found = number(f[2]);
        }
        return found.has_value();
    });
    return found;
}

/// A file that is missing or unreadable has no entries, as for getpwnam(3).
std::string database(const std::string& rootfs, const char* path) {
    auto text = read_in_root(rootfs, path, kMaxDatabase);
    return text.ok() ? std::move(text).value() : std::string();
}

void add_group(std::vector<uint32_t>& groups, uint32_t gid) {
    if (std::find(groups.begin(), groups.end(), gid) == groups.end()) {
        groups.push_back(gid);
    }
}

}  // namespace

ImageUser parse_image_user(const std::string& user) {
    const std::string name = user.substr(0, user.find(':'));
    ImageUser result;
    if (const auto uid = number(name)) {
        result.uid = *uid;
    } else if (name.empty()) {
        result.uid = 0;
    } else {
        result.username = name;
    }
    return result;
}

Result<ResolvedUser> resolve_user(const std::string& rootfs, const UserRequest& request) {
    if (request.gid && !request.uid && request.username.empty()) {
        return invalid_argument("run_as_group: given without run_as_user or run_as_username");
    }
    const std::string passwd = database(rootfs, "/etc/passwd");
    const std::string group = database(rootfs, "/etc/group");

    std::string user_text = request.username;
    std::string group_text;
    if (!request.uid && user_text.empty()) {
        const size_t colon = request.image_user.find(':');
        user_text = request.image_user.substr(0, colon);
        group_text = colon == std::string::npos ? "" : request.image_user.substr(colon + 1);
    }
    std::optional<uint32_t> uid;
    if (request.uid) {
        uid = TRY(id_of(*request.uid, "run_as_user"));
    } else {
        uid = user_text.empty() ? 0 : number(user_text);
    }

    ResolvedUser result;
    std::optional<Account> account;
    if (uid) {
        account = find_account(passwd, [&](std::string_view, uint32_t id) { return id == *uid; });
        result.ids.uid = *uid;
    } else {
        account = find_account(passwd,
                               [&](std::string_view name, uint32_t) { return name == user_text; });
        if (!account) {
            return invalid_argument("user \"" + user_text + "\": not in the image's /etc/passwd");
        }
        result.ids.uid = account->uid;
    }
    if (account) {
        result.ids.gid = account->gid;
        result.home = account->home.empty() ? "/" : account->home;
    }
    if (request.gid) {
        result.ids.gid = TRY(id_of(*request.gid, "run_as_group"));
    } else if (!group_text.empty()) {
        auto gid = number(group_text);
        gid = gid ? gid : find_group(group, group_text);
        if (!gid) {
            return invalid_argument("group \"" + group_text + "\": not in the image's /etc/group");
        }
        result.ids.gid = *gid;
    }

    // The primary group comes first, as login(1) has it.
    add_group(result.ids.groups, result.ids.gid);
    for (const int64_t gid : request.supplemental_groups) {
        add_group(result.ids.groups, TRY(id_of(gid, "supplemental_groups")));
    }
    if (request.merge_image_groups && account) {
        each_line(group, 4, [&](const std::vector<std::string_view>& f) {
            const auto gid = number(f[2]);
            std::string_view members = f[3];
            while (gid && !members.empty()) {
                const size_t comma = members.find(',');
                if (members.substr(0, comma) == account->name) {
                    add_group(result.ids.groups, *gid);
                }
                members.remove_prefix(comma == std::string_view::npos ? members.size() : comma + 1);
            }
            return false;
        });
    }
    return result;
}

}  // namespace moat::cri
