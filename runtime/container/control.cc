// Verbs that change a container that exists.

#include <errno.h>

#include "kernel/base/log.h"
#include "runtime/container/impl.h"
#include "runtime/hooks/hooks.h"

namespace moat::runtime {

namespace {

/// A sentry that does not answer must not hold up who changes limits.
constexpr int kUpdateTimeoutMs = 10000;

}  // namespace

Status SentryRuntime::start(const std::string& id) {
    const std::string step = "start " + id;
    // Locked: start and delete of one container do not interleave.
    const auto directory =
        TRY_STEP(step, StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive));
    const Record record = TRY_STEP(step, directory.load());
    if (!record.complete) {
        return Error(EINVAL, step + ": its creation was not completed");
    }
    TRY_STEP(step, impl_->call(id, "start"));
    if (!record.poststart.empty()) {
        const auto info = TRY_STEP(step, impl_->info(directory, record));
        // OCI: an error of poststart is logged, and the container goes on.
        if (const auto hooks = run_hooks(record.poststart, "poststart", oci_state_json(info));
            !hooks.ok()) {
            LOG(kWarning, "runtime", "%s: %s", id.c_str(), hooks.error().message().c_str());
        }
    }
    return {};
}

Status SentryRuntime::Impl::signal(const std::string& id, control::Json fields) {
    const std::string step = "kill " + id;
    const auto answer = call(id, "signal", std::move(fields));
    if (!answer.ok()) {
        if (answer.error().code() == ECONNRESET) {
            return Error(ESRCH, step + ": it does not run: " + answer.error().message());
        }
        return answer.error().within(step);
    }
    return {};
}

Status SentryRuntime::kill(const std::string& id, int signal, bool all) {
    return impl_->signal(id, {{"signal", signal}, {"all", all}});
}

Status SentryRuntime::interrupt(const std::string& id, int signal) {
    return impl_->signal(id, {{"signal", signal}, {"all", false}, {"init_default", true}});
}

Status SentryRuntime::kill_exec(const std::string& id, const std::string& exec_id, int signal) {
    TRY_STEP("kill " + exec_id + " in " + id,
             impl_->call(id, "signal", {{"signal", signal}, {"all", false}, {"exec_id", exec_id}}));
    return {};
}

Status SentryRuntime::attach(const std::string& id, const AttachStdio& stdio) {
    std::vector<NamedFd> fds;
    for (const auto& [name, fd] :
         {std::pair("stdin", stdio.stdin_fd), std::pair("stdout", stdio.stdout_fd),
          std::pair("stderr", stdio.stderr_fd)}) {
        if (fd >= 0) {
            fds.push_back({name, fd});
        }
    }
    TRY_STEP("attach to " + id, impl_->call(id, "attach", control::Json::object(), fds));
    return {};
}

Status SentryRuntime::resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                             uint16_t columns) {
    control::Json fields = {{"rows", rows}, {"columns", columns}};
    if (!exec_id.empty()) {
        fields["exec_id"] = exec_id;
    }
    TRY_STEP("resize the terminal of " + id, impl_->call(id, "resize", std::move(fields)));
    return {};
}

Status SentryRuntime::reopen_log(const std::string& id, int log_fd) {
    TRY_STEP("reopen the log of " + id,
             impl_->call(id, "reopen_log", control::Json::object(), {{"log", log_fd}}));
    return {};
}

Status SentryRuntime::pause(const std::string& id) {
    const std::string step = "pause " + id;
    const auto directory =
        TRY_STEP(step, StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive));
    Record record = TRY_STEP(step, directory.load());
    const auto* manager = TRY_STEP(step, impl_->manager());
    TRY_STEP(step, impl_->call(id, "pause"));
    // Written before it is done: a frozen process cannot be killed, so removal must know.
    record.frozen = true;
    Status frozen = directory.save(record);
    if (frozen.ok()) {
        frozen = manager->freeze(record.container_cgroup);
    }
    if (!frozen.ok()) {
        (void)impl_->call(id, "resume");
        return frozen.error().within(step);
    }
    return {};
}

Status SentryRuntime::resume(const std::string& id) {
    const std::string step = "resume " + id;
    const auto directory =
        TRY_STEP(step, StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive));
    Record record = TRY_STEP(step, directory.load());
    const auto* manager = TRY_STEP(step, impl_->manager());
    if (record.frozen) {
        TRY_STEP(step, manager->thaw(record.container_cgroup));
        record.frozen = false;
        TRY_STEP(step, directory.save(record));
    }
    TRY_STEP(step, impl_->call(id, "resume"));
    return {};
}

Status SentryRuntime::update(const std::string& id, const Resources& resources) {
    const std::string step = "update " + id;
    const auto directory =
        TRY_STEP(step, StateDirectory::open(impl_->options.state_root, id, LockMode::kExclusive));
    const Record record = TRY_STEP(step, directory.load());
    const auto* manager = TRY_STEP(step, impl_->manager());
    cgroups::Limits limits = limits_of(resources);
    const control::ShownLimits told = shown(limits);
    if (limits.pids) {
        limits.pids = host_pids(*limits.pids);
    }
    const auto change = TRY_STEP(
        step, record.has_container
                  ? manager->change_limits(record.container_cgroup, limits)
                  : manager->change_limits(record.pod_cgroup,
                                           within_parent(*manager, record.pod_cgroup, limits)));
    auto client = TRY_STEP(step, impl_->connect(record.sandbox_id));
    if (record.has_container) {
        TRY_STEP(step, client.call("update", {{"id", id}, {"limits", control::to_json(told)}}, {},
                                   kUpdateTimeoutMs));
    } else if (told.memory_bytes) {
        TRY_STEP(step, client.call("update_sandbox", {{"memory_bytes", *told.memory_bytes}}, {},
                                   kUpdateTimeoutMs));
    }
    change->keep();
    if (resources.oom_score_adj && record.has_container) {
        set_oom_score(*manager, record.container_cgroup, *resources.oom_score_adj);
    }
    return {};
}

Result<std::string> SentryRuntime::exec(const std::string& id, const ExecConfig& config) {
    const std::string step = "exec in " + id;
    const Record record = TRY_STEP(step, impl_->load(id));
    control::ProcessPlan plan = record.process;
    if (!config.process_json.empty()) {
        plan =
            plan_process(TRY_STEP(step, parse_process(config.process_json, "the process object")));
    } else {
        plan.args = config.args;
        plan.terminal = config.terminal;
        plan.console_rows = config.rows;
        plan.console_columns = config.columns;
        if (!config.env.empty()) {
            plan.env = config.env;
        }
        for (const std::string& variable : config.extra_env) {
            const std::string name = variable.substr(0, variable.find('=')) + "=";
            std::erase_if(plan.env, [&](const std::string& v) { return v.rfind(name, 0) == 0; });
            plan.env.push_back(variable);
        }
        if (!config.cwd.empty()) {
            plan.cwd = config.cwd;
        }
        if (config.uid) {
            plan.uid = *config.uid;
            plan.additional_gids.clear();
        }
        if (config.gid) {
            plan.gid = *config.gid;
        }
        if (!config.additional_gids.empty()) {
            plan.additional_gids = config.additional_gids;
        }
    }
    if (plan.args.empty()) {
        return Error(EINVAL, step + ": no program is named");
    }
    const auto fds = TRY_STEP(step, plan_stdio(config.stdio, plan));
    const auto answer =
        TRY_STEP(step, impl_->call(id, "exec", {{"process", control::to_json(plan)}}, fds));
    const std::string exec_id = control::get_string(answer, "exec_id");
    if (exec_id.empty()) {
        return Error(EBADMSG, step + ": the sentry's answer names no exec");
    }
    return exec_id;
}

}  // namespace moat::runtime
