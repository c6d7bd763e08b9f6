#include "runtime/rootfs/mounts.h"

#include <errno.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

struct Hint {
    std::string name, source, type, share;
};

Result<std::vector<Hint>> read_hints(const std::map<std::string, std::string>& annotations) {
    std::map<std::string, Hint> by_name;
    for (const char* prefix : {"dev.gvisor.spec.mount.", "dev.moat.spec.mount."}) {
        const std::string_view p = prefix;
        for (const auto& [key, value] : annotations) {
            if (key.rfind(p, 0) != 0) {
                continue;
            }
            const size_t dot = key.rfind('.');
            if (dot <= p.size()) {
                return Error(EINVAL, "annotation " + key + ": expected " + prefix + "NAME.FIELD");
            }
            const std::string name = key.substr(p.size(), dot - p.size());
            const std::string field = key.substr(dot + 1);
            Hint& hint = by_name[name];
            hint.name = name;
            if (field == "source") {
                hint.source = value;
            } else if (field == "type") {
                if (value != "tmpfs" && value != "bind") {
                    return Error(EINVAL, "annotation " + key +
                                             ": expected tmpfs or bind, found \"" + value + "\"");
                }
                hint.type = value;
            } else if (field == "share") {
                if (value != "container" && value != "pod" && value != "shared") {
                    return Error(EINVAL, "annotation " + key +
                                             ": expected container, pod or shared, found \"" +
                                             value + "\"");
                }
                hint.share = value;
            } else if (field != "options") {
                return Error(EINVAL, "annotation " + key + ": unknown field \"" + field + "\"");
            }
        }
    }
    std::vector<Hint> hints;
    for (auto& [name, hint] : by_name) {
        hints.push_back(std::move(hint));
    }
    return hints;
}

bool has_option(const SpecMount& mount, const char* option) {
    return std::find(mount.options.begin(), mount.options.end(), option) != mount.options.end();
}

bool is_bind(const SpecMount& mount) {
    return mount.type == "bind" || mount.type == "rbind" || has_option(mount, "bind") ||
           has_option(mount, "rbind");
}

/// Whether something is mounted below `path`, which has no links in it (proc_pid_mountinfo(5)).
Result<bool> has_mounts_below(const std::string& path) {
    std::ifstream table("/proc/self/mountinfo");
    if (!table) {
        return Error::from_errno(errno, "open /proc/self/mountinfo");
    }
    // Blanks and backslashes of a mount point are written in octal there.
    std::string prefix;
    for (const char c : path == "/" ? std::string() : path) {
        if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
            char octal[5];
            snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned>(c));
            prefix += octal;
        } else {
            prefix += c;
        }
    }
    prefix += '/';
    for (std::string line; std::getline(table, line);) {
        std::istringstream fields(line);
        std::string id, parent, device, root, point;
        fields >> id >> parent >> device >> root >> point;
        if (point.size() > prefix.size() && point.compare(0, prefix.size(), prefix) == 0) {
            return true;
        }
    }
    return false;
}

/// mount(8)'s words that say nothing to a guest's mount: propagation and access times end at the
/// sandbox.
bool is_host_only(const std::string& option) {
    static const char* const kWords[] = {
        "bind",        "rbind",        "private",     "rprivate",    "shared",      "rshared",
        "slave",       "rslave",       "unbindable",  "runbindable", "rw",          "rrw",
        "suid",        "rsuid",        "exec",        "rexec",       "dev",         "rdev",
        "strictatime", "rstrictatime", "relatime",    "rrelatime",   "norelatime",  "noatime",
        "rnoatime",    "atime",        "ratime",      "nodiratime",  "diratime",    "rnodiratime",
        "sync",        "async",        "dirsync",     "defaults",    "newinstance", "tmpcopyup",
        "idmap",       "ridmap",       "nosymfollow", "iversion",    "noiversion",  "silent",
        "loud",
    };
    return std::find(std::begin(kWords), std::end(kWords), option) != std::end(kWords);
}

void apply_options(const SpecMount& from, control::MountPlan& to) {
    for (const std::string& option : from.options) {
        if (option == "ro" || option == "rro") {
            to.read_only = true;
        } else if (option == "rw" || option == "rrw") {
            to.read_only = false;
        } else if (option == "noexec" || option == "rnoexec") {
            to.no_exec = true;
        } else if (option == "nosuid" || option == "rnosuid") {
            to.no_suid = true;
        } else if (option == "nodev" || option == "rnodev") {
            to.no_dev = true;
        } else if (!is_host_only(option)) {
            to.options.push_back(option);
        }
    }
}

std::string clean_destination(const std::string& path) {
    std::vector<std::string> parts;
    size_t at = 0;
    while (at < path.size()) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string part = path.substr(at, end - at);
        if (part == "..") {
            if (!parts.empty()) {
                parts.pop_back();
            }
        } else if (!part.empty() && part != ".") {
            parts.push_back(part);
        }
        at = end + 1;
    }
    std::string clean;
    for (const std::string& part : parts) {
        clean += "/" + part;
    }
    return clean.empty() ? "/" : clean;
}

std::string annotation(const std::map<std::string, std::string>& annotations, const char* key,
                       const char* fallback) {
    const auto it = annotations.find(key);
    return it == annotations.end() ? fallback : it->second;
}

class Planner {
  public:
    Planner(const std::string& bundle, std::vector<Hint> hints, bool connect_sockets)
        : bundle_(bundle), hints_(std::move(hints)), connect_sockets_(connect_sockets) {}

    Status add(const SpecMount& mount, FilePlan& out) {
        control::MountPlan plan;
        plan.destination = clean_destination(mount.destination);
        apply_options(mount, plan);
        if (plan.destination == "/") {
            return Error(EINVAL, "nothing can be mounted over the root");
        }
        if (const Hint* hint = find_hint(mount)) {
            plan.type = hint->share == "pod" ? "shared" : "tmpfs";
            plan.source = hint->share == "pod" ? hint->name : "tmpfs";
            out.mounts.push_back(std::move(plan));
            return {};
        }
        if (is_bind(mount)) {
            return add_bind(mount, std::move(plan), out);
        }
        if (mount.type == "tmpfs") {
            // OCI has no type of its own for the directory of device nodes.
            plan.type = plan.destination == "/dev" ? "dev" : "tmpfs";
        } else if (mount.type == "proc" || mount.type == "sysfs" || mount.type == "devpts" ||
                   mount.type == "mqueue") {
            plan.type = mount.type;
        } else if (mount.type == "devtmpfs") {
            plan.type = "dev";
        } else if (mount.type == "cgroup" || mount.type == "cgroup2") {
            plan.type = "cgroup";
        } else {
            return Error(ENODEV,
                         "file system type \"" + mount.type + "\" is not known in a sandbox");
        }
        plan.source = mount.source;
        out.mounts.push_back(std::move(plan));
        return {};
    }

  private:
    const Hint* find_hint(const SpecMount& mount) const {
        for (const Hint& hint : hints_) {
            // A volume that other pods see too stays on the host.
            if (!hint.source.empty() && hint.source == mount.source && hint.type == "tmpfs" &&
                (hint.share == "pod" || hint.share == "container")) {
                return &hint;
            }
        }
        return nullptr;
    }

    Status add_bind(const SpecMount& mount, control::MountPlan plan, FilePlan& out) {
        if (mount.source.empty()) {
            return Error(EINVAL, "a bind mount needs a source");
        }
        const std::string source = TRY_STEP(
            "source",
            real_path(mount.source[0] == '/' ? mount.source : bundle_ + "/" + mount.source));
        struct stat st;
        if (::stat(source.c_str(), &st) != 0) {
            return Error::from_errno(errno, "source " + source);
        }
        gofer::GoferMount served;
        served.source = source;
        served.destination = plan.destination;
        served.read_only = plan.read_only;
        const bool slave = has_option(mount, "rslave") || has_option(mount, "slave");
        if (slave) {
            served.options.push_back("rslave");
        }
        if (plan.read_only && !has_option(mount, "rro") &&
            (slave || TRY(has_mounts_below(source)))) {
            // "ro" is about the mount itself, not about those below it (mount(8)), which only the
            // host can tell apart: it refuses the writes, and the guest's mount lets them through.
            served.read_only = false;
            served.options.push_back("ro-top");
            plan.read_only = false;
        }
        if (plan.no_exec) {
            served.options.push_back("noexec");
        }
        if (connect_sockets_) {
            served.options.push_back("connect");
        }
        plan.type = "gofer";
        plan.source = source;
        plan.options.clear();
        plan.gofer_mount = static_cast<int>(out.gofer.mounts.size());
        if (out.gofer.mounts.size() >= gofer::kMaxMounts) {
            return Error(E2BIG, "more than " + std::to_string(gofer::kMaxMounts) + " bind mounts");
        }
        out.gofer.mounts.push_back(std::move(served));
        out.mounts.push_back(std::move(plan));
        return {};
    }

    const std::string& bundle_;
    const std::vector<Hint> hints_;
    const bool connect_sockets_;
};

/// Files in memory (the root's upper layer, tmpfs) are the sentry's memory: the container's cgroup,
/// which holds its processes, never meets them. So each file system holds as much as the container
/// may have, unless its mount says how much.
void bound_memory_files(const Spec& spec, FilePlan& out) {
    const int64_t limit = spec.limits.memory_bytes.value_or(0);
    if (limit <= 0) {
        return;
    }
    out.root.upper_bytes = static_cast<uint64_t>(limit);
    for (control::MountPlan& mount : out.mounts) {
        const bool sized =
            std::any_of(mount.options.begin(), mount.options.end(), [](const std::string& option) {
                return option.rfind("size=", 0) == 0 || option.rfind("nr_blocks=", 0) == 0;
            });
        if (mount.type == "tmpfs" && !sized) {
            mount.options.push_back("size=" + std::to_string(limit));
        }
    }
}

}  // namespace

Result<FilePlan> plan_files(const Spec& spec, const std::string& id, const std::string& bundle,
                            const std::map<std::string, std::string>& annotations) {
    FilePlan out;
    const std::string root = TRY_STEP(
        "root",
        real_path(spec.root_path[0] == '/' ? spec.root_path : bundle + "/" + spec.root_path));
    struct stat st;
    if (::stat(root.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) {
        return Error::from_errno(ENOTDIR, "root " + root);
    }
    const std::string overlay = annotation(annotations, "dev.moat.overlay", "root");
    if (overlay != "root" && overlay != "none") {
        return Error(EINVAL, "annotation dev.moat.overlay: expected root or none, found \"" +
                                 overlay + "\"");
    }
    // A read-only root gets the overlay too: mount points that it lacks are made in the upper
    // layer, before the guest sees it read-only.
    out.root.overlay = overlay == "root" || spec.root_readonly;
    out.root.read_only = spec.root_readonly;
    out.gofer.id = id;
    out.gofer.mounts.push_back({root, "/", out.root.overlay, {}});

    Planner planner(bundle, TRY(read_hints(annotations)),
                    annotation(annotations, "dev.moat.host-uds", "none") == "connect");
    bool dev = false;
    for (const SpecMount& mount : spec.mounts) {
        TRY_STEP("mount " + mount.destination, planner.add(mount, out));
        dev |= out.mounts.back().destination == "/dev";
    }
    bound_memory_files(spec, out);
    if (!dev) {
        // Like runc: without a mount for it, /dev gets the devices that every container has.
        control::MountPlan plan;
        plan.destination = "/dev";
        plan.type = "dev";
        plan.no_suid = true;
        out.mounts.insert(out.mounts.begin(), std::move(plan));
    }
    return out;
}

std::string gofer_plan_json(const gofer::GoferPlan& plan) {
    nlohmann::json mounts = nlohmann::json::array();
    for (const gofer::GoferMount& mount : plan.mounts) {
        mounts.push_back({{"source", mount.source},
                          {"destination", mount.destination},
                          {"read_only", mount.read_only},
                          {"options", mount.options}});
    }
    const nlohmann::json whole = {{"id", plan.id}, {"mounts", std::move(mounts)}};
    return whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace moat::runtime
