#include "cri/server/convert.h"

#include <string.h>

#include "cri/containers/resources.h"
#include "cri/containers/user.h"

namespace moat::cri {

api::PodSandboxState pod_state(const PodRecord& record) {
    return record.state == PodState::kReady ? api::SANDBOX_READY : api::SANDBOX_NOTREADY;
}

api::ContainerState container_state(const ContainerRecord& record) {
    switch (record.phase) {
        case ContainerPhase::kCreated:
            return api::CONTAINER_CREATED;
        case ContainerPhase::kRunning:
            return api::CONTAINER_RUNNING;
        case ContainerPhase::kExited:
            return api::CONTAINER_EXITED;
        case ContainerPhase::kCreating:
        case ContainerPhase::kRemoving:
            break;
    }
    return api::CONTAINER_UNKNOWN;
}

namespace {

/// What both forms of a pod have.
template <typename Message>
void fill_pod(Message& out, const PodRecord& record, const api::PodSandboxConfig& config) {
    out.set_id(record.id);
    *out.mutable_metadata() = config.metadata();
    out.set_state(pod_state(record));
    out.set_created_at(record.created_at_ns);
    *out.mutable_labels() = config.labels();
    *out.mutable_annotations() = config.annotations();
    out.set_runtime_handler(record.handler);
}

template <typename Message>
void fill_container(Message& out, const ContainerRecord& record,
                    const api::ContainerConfig& config) {
    out.set_id(record.id);
    *out.mutable_metadata() = config.metadata();
    *out.mutable_image() = config.image();
    out.set_image_ref(record.image_ref);
    out.set_image_id(record.image_id);
    out.set_state(container_state(record));
    out.set_created_at(record.created_at_ns);
    *out.mutable_labels() = config.labels();
    *out.mutable_annotations() = config.annotations();
}

template <typename Map>
bool has_labels(const Map& selector, const Map& labels) {
    for (const auto& [key, value] : selector) {
        const auto it = labels.find(key);
        if (it == labels.end() || it->second != value) {
            return false;
        }
    }
    return true;
}

}  // namespace

void fill(api::PodSandbox& out, const PodRecord& record, const api::PodSandboxConfig& config) {
    fill_pod(out, record, config);
}

void fill(api::PodSandboxStatus& out, const PodRecord& record,
          const api::PodSandboxConfig& config) {
    fill_pod(out, record, config);
    const auto& options = config.linux().security_context().namespace_options();
    *out.mutable_linux()->mutable_namespaces()->mutable_options() = options;
    // A pod in the node's network has no address of its own: kubelet fills in the node's.
    auto* network = out.mutable_network();
    if (record.state == PodState::kReady) {
        for (size_t i = 0; i < record.network.ips.size(); ++i) {
            if (i == 0) {
                network->set_ip(record.network.ips[i]);
            } else {
                network->add_additional_ips()->set_ip(record.network.ips[i]);
            }
        }
    }
}

void fill(api::Container& out, const ContainerRecord& record, const api::ContainerConfig& config) {
    fill_container(out, record, config);
    out.set_pod_sandbox_id(record.pod_id);
}

void fill(api::ContainerStatus& out, const ContainerRecord& record,
          const api::ContainerConfig& config) {
    fill_container(out, record, config);
    out.set_started_at(record.started_at_ns);
    out.set_finished_at(record.finished_at_ns);
    out.set_exit_code(record.exit_code);
    out.set_reason(record.reason);
    out.set_message(record.message);
    *out.mutable_mounts() = config.mounts();
    out.set_log_path(record.log_path);
    *out.mutable_resources()->mutable_linux() = resources_of(record, config);
    auto* user = out.mutable_user()->mutable_linux();
    user->set_uid(record.user.uid);
    user->set_gid(record.user.gid);
    for (const uint32_t gid : record.user.groups) {
        user->add_supplemental_groups(gid);
    }
    out.set_stop_signal(to_signal(record.stop_signal));
}

void fill(api::Image& out, const ImageRecord& image) {
    out.set_id(image.id);
    for (const std::string& name : image.tags) {
        out.add_repo_tags(name);
    }
    for (const std::string& name : image.digests) {
        out.add_repo_digests(name);
    }
    out.set_size(image.size);
    out.mutable_spec()->set_image(image.id);
    const ImageUser user = parse_image_user(image.user);
    if (user.uid) {
        out.mutable_uid()->set_value(*user.uid);
    }
    out.set_username(user.username);
}

bool matches(const api::PodSandboxFilter& filter, const api::PodSandbox& pod) {
    return pod.id().compare(0, filter.id().size(), filter.id()) == 0 &&
           (!filter.has_state() || filter.state().state() == pod.state()) &&
           has_labels(filter.label_selector(), pod.labels());
}

bool matches(const api::ContainerFilter& filter, const api::Container& container) {
    return container.id().compare(0, filter.id().size(), filter.id()) == 0 &&
           container.pod_sandbox_id().compare(0, filter.pod_sandbox_id().size(),
                                              filter.pod_sandbox_id()) == 0 &&
           (!filter.has_state() || filter.state().state() == container.state()) &&
           has_labels(filter.label_selector(), container.labels());
}

bool matches(const api::ContainerStatsFilter& filter, const Container& container) {
    return container.id.compare(0, filter.id().size(), filter.id()) == 0 &&
           container.pod_id.compare(0, filter.pod_sandbox_id().size(), filter.pod_sandbox_id()) ==
               0 &&
           has_labels(filter.label_selector(), container.config->labels());
}

bool matches(const api::PodSandboxStatsFilter& filter, const Pod& pod) {
    return pod.id.compare(0, filter.id().size(), filter.id()) == 0 &&
           has_labels(filter.label_selector(), pod.config->labels());
}

api::Signal to_signal(int number) {
    std::string name;
    if (const char* known = number < 32 ? sigabbrev_np(number) : nullptr; known != nullptr) {
        name = std::string("SIGNAL_SIG") + known;
    } else if (number >= 34 && number <= 49) {
        name = "SIGNAL_SIGRTMIN" + (number == 34 ? "" : "PLUS" + std::to_string(number - 34));
    } else if (number >= 50 && number <= 64) {
        name = "SIGNAL_SIGRTMAX" + (number == 64 ? "" : "MINUS" + std::to_string(64 - number));
    }
    api::Signal signal = api::SIGNAL_RUNTIME_DEFAULT;
    (void)api::Signal_Parse(name, &signal);
    return signal;
}

}  // namespace moat::cri
