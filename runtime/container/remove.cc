#include <errno.h>

#include "kernel/base/log.h"
#include "runtime/container/impl.h"
#include "runtime/hooks/hooks.h"

namespace moat::runtime {

namespace {

/// The sentry's `destroy` kills and waits for every process of a container.
constexpr int kDestroyTimeoutMs = 10000;

bool is_gone(const Error& error) {
    return error.code() == ECONNRESET || error.code() == ECONNREFUSED || error.code() == ENOENT;
}

}  // namespace

Status SentryRuntime::Impl::thaw(const StateDirectory& directory, Record& record) {
    if (record.frozen) {
        const auto* machine = TRY(manager());
        TRY_STEP("thaw it", machine->thaw(record.container_cgroup));
        record.frozen = false;
        TRY(directory.save(record));
    }
    return {};
}

Status SentryRuntime::Impl::tear_down(const StateDirectory& directory, Record& record) {
    TRY(thaw(directory, record));
    // A container in somebody else's sentry is forgotten there first, so that no guest process is
    // left when its cgroup goes.
    if (record.has_container && !record.has_sandbox) {
        auto client = connect(record.sandbox_id);
        if (client.ok()) {
            const auto answer = client->call("destroy", {{"id", record.id}}, {}, kDestroyTimeoutMs);
            if (!answer.ok() && !is_gone(answer.error())) {
                return answer.error().within("destroy it in the sentry");
            }
        }
    }
    // The sentry is the init of its pid namespace: with it every guest process is dead, and waited
    // for.
    if (record.has_sandbox) {
        TRY_STEP("kill the sentry", record.sentry.kill_and_wait());
    }
    TRY_STEP("kill the gofer", record.gofer.kill_and_wait());
    if (!record.cgroup_directories.empty()) {
        const auto* machine = TRY(manager());
        // Also finds what was started by a creation that was killed before it could write the pid
        // down.
        const std::string& cgroup =
            record.has_sandbox ? record.pod_cgroup : record.container_cgroup;
        if (!cgroup.empty()) {
            TRY(machine->kill(cgroup));
        }
        TRY(cgroups::remove(record.cgroup_directories));
    }
    if (record.complete && record.has_container) {
        ContainerInfo stopped;
        stopped.id = record.id;
        stopped.bundle = record.bundle;
        stopped.state = ContainerState::kStopped;
        stopped.annotations = record.annotations;
        // OCI: an error of poststop is logged, and removal goes on.
        if (const auto hooks = run_hooks(record.poststop, "poststop", oci_state_json(stopped));
            !hooks.ok()) {
            LOG(kWarning, "runtime", "%s: %s", record.id.c_str(), hooks.error().message().c_str());
        }
    }
    TRY_STEP("remove the state directory", directory.remove());
    return {};
}

Status SentryRuntime::destroy_sandbox(const std::string& id) {
    const std::string step = "destroy sandbox " + id;
    auto directory = StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive);
    if (!directory.ok()) {
        return directory.error().code() == ENOENT ? Status()
                                                  : Status(directory.error().within(step));
    }
    auto record = directory->load();
    if (!record.ok()) {
        // Killed before its first word, or cut short by a loss of power: nothing was made yet, or
        // nothing of it lives any more.
        LOG(kWarning, "runtime", "%s: %s", step.c_str(), record.error().message().c_str());
        TRY_STEP(step, directory->remove());
        return {};
    }
    // What is frozen does not die with the sentry, and keeps it from dying.
    const auto members = TRY_STEP(step, impl_->members(id));
    TRY_STEP(step, impl_->thaw(*directory, *record));
    for (const std::string& member : members) {
        auto other = StateDirectory::open(impl_->options.state_root, member, LockMode::kExclusive);
        if (other.ok()) {
            if (auto its = other->load(); its.ok()) {
                TRY_STEP(step + ": container " + member, impl_->thaw(*other, *its));
            }
        }
    }
    // The sentry first: its containers then need no word with it.
    TRY_STEP(step, record->sentry.kill_and_wait());
    for (const std::string& member : members) {
        auto other = StateDirectory::open(impl_->options.state_root, member, LockMode::kExclusive);
        if (!other.ok()) {
            continue;  // removed by somebody else in between
        }
        auto its = other->load();
        if (its.ok()) {
            TRY_STEP(step + ": container " + member, impl_->tear_down(*other, *its));
        }
    }
    TRY_STEP(step, impl_->tear_down(*directory, *record));
    return {};
}

Status SentryRuntime::remove(const std::string& id, bool force) {
    const std::string step = "delete " + id;
    {
        const auto directory = TRY_STEP(
            step, StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive));
        auto record = directory.load();
        if (!record.ok()) {
            LOG(kWarning, "runtime", "%s: %s", step.c_str(), record.error().message().c_str());
            TRY_STEP(step, directory.remove());
            return {};
        }
        if (record->complete && !force) {
            const auto now = TRY_STEP(step, impl_->info(directory, *record));
            if (now.state != ContainerState::kStopped) {
                return Error(EBUSY, step + ": it is " + control::container_state_name(now.state) +
                                        ", not stopped");
            }
            if (record->has_sandbox && !TRY_STEP(step, impl_->members(id)).empty()) {
                return Error(EBUSY, step + ": other containers live in its sandbox");
            }
        }
        if (!record->has_sandbox) {
            TRY_STEP(step, impl_->tear_down(directory, *record));
            return {};
        }
    }
    return destroy_sandbox(id);
}

}  // namespace moat::runtime
