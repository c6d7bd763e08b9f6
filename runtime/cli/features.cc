#include <stdio.h>

#include "runtime/cli/cli.h"
#include "runtime/spec/fields.h"
#include "runtime/spec/spec.h"

namespace moat::runtime::cli {

void add_features(CLI::App& app, Cli& cli) {
    app.add_subcommand("features", "print what this runtime understands (OCI features.md)")
        ->final_callback([&cli] {
            cli.action = [] {
                const Json features = {
                    {"ociVersionMin", "1.0.0"},
                    {"ociVersionMax", "1.2.0"},
                    {"hooks",
                     {"prestart", "createRuntime", "createContainer", "poststart", "poststop"}},
                    {"mountOptions", {"bind", "rbind", "ro", "rw", "noexec", "nosuid", "nodev"}},
                    {"linux",
                     {{"namespaces", {"cgroup", "ipc", "mount", "network", "pid", "uts"}},
                      {"capabilities", capability_names()},
                      {"cgroup",
                       {{"v1", true}, {"v2", true}, {"systemd", false}, {"systemdUser", false}}},
                      {"seccomp",
                       {{"enabled", true},
                        {"actions", seccomp_action_names()},
                        {"operators", seccomp_operator_names()},
                        {"archs", {"SCMP_ARCH_X86_64"}},
                        {"knownFlags",
                         {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                          "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}}}},
                      {"apparmor", {{"enabled", false}}},
                      {"selinux", {{"enabled", false}}}}}};
                printf("%s\n", features.dump(2).c_str());
                return 0;
            };
        });
}

}  // namespace moat::runtime::cli
