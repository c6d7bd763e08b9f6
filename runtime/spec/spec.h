#pragma once

// config.json of an OCI bundle (OCI runtime-spec 1.x), as far as a sandbox can honour it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cgroups/cgroup.h"
#include "kernel/control/plan.h"
#include "runtime/error.h"
#include "runtime/spec/seccomp.h"

namespace moat::runtime {

struct SpecMount {
    std::string destination;
    std::string type;
    std::string source;
    std::vector<std::string> options;
};

struct SpecHook {
    std::string path;
    std::vector<std::string> args;  ///< argv, argv[0] included; empty: the path alone
    std::vector<std::string> env;
    int timeout_s = 0;  ///< 0: none
};

struct SpecHooks {
    std::vector<SpecHook> prestart, create_runtime, create_container, start_container, poststart,
        poststop;
};

struct SpecNamespace {
    std::string type;
    std::string path;  ///< empty: a new one
};

struct SpecProcess {
    bool terminal = false;
    uint16_t console_rows = 0;
    uint16_t console_columns = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::vector<uint32_t> additional_gids;
    std::optional<uint32_t> umask;
    std::vector<std::string> args;
    std::vector<std::string> env;
    std::string cwd = "/";
    control::CapabilitySets capabilities;
    std::vector<control::Rlimit> rlimits;
    bool no_new_privileges = false;
    std::optional<int> oom_score_adj;
};

struct Spec {
    std::string root_path;  ///< as written; relative to the bundle
    bool root_readonly = false;
    std::string hostname;
    SpecProcess process;
    std::vector<SpecMount> mounts;
    SpecHooks hooks;
    std::map<std::string, std::string> annotations;
    // linux:
    std::vector<SpecNamespace> namespaces;
    cgroups::Limits limits;
    std::string cgroups_path;
    std::vector<std::string> masked_paths;
    std::vector<std::string> readonly_paths;
    std::map<std::string, std::string> sysctl;
    std::optional<SpecSeccomp> seccomp;
    /// With a user namespace; one range from id 0 on each.
    std::optional<control::IdMap> uid_map, gid_map;

    /// The namespace entry of `type`, or nullptr.
    const SpecNamespace* find_namespace(const std::string& type) const;
};

/// Reads `<bundle>/config.json`. Every error names the file, the field and what was expected there.
Result<Spec> load_spec(const std::string& bundle);
/// The same from text; `file` is for messages.
Result<Spec> parse_spec(const std::string& text, const std::string& file);
/// A lone OCI process object, as `exec --process` takes it.
Result<SpecProcess> parse_process(const std::string& text, const std::string& file);
/// `linux.resources`, as `update --resources` takes it.
Result<cgroups::Limits> parse_resources(const std::string& text, const std::string& file);

/// "CAP_NET_ADMIN" to its bit; -1 for a name that linux/capability.h does not have.
int capability_bit(const std::string& name);
/// All names, in the order of their bits.
const std::vector<std::string>& capability_names();

/// The config.json that `moat spec` writes.
std::string default_spec();

enum class ContainerRole { kAlone, kSandbox, kJoins };
struct Placement {
    ContainerRole role = ContainerRole::kAlone;
    std::string sandbox_id;  ///< for kJoins
};
/// By the annotations of containerd (io.kubernetes.cri.*) and CRI-O (io.kubernetes.cri-o.*):
/// whether a container starts a pod's sandbox or joins one.
Result<Placement> placement_of(const std::map<std::string, std::string>& annotations);

}  // namespace moat::runtime
