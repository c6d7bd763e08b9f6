#include "cri/containers/resources.h"

#include "api.pb.h"
#include "cri/store/container_store.h"

namespace moat::cri {

namespace {

Error wrong(const std::string& field, const std::string& value, const std::string& wanted) {
    return invalid_argument("linux." + field + ": " + value + ": " + wanted);
}

/// Digits, commas and dashes: a list as in cpuset(7). Which of them exist is the kernel's to say.
bool is_list(const std::string& text) {
    return text.find_first_not_of("0123456789,-") == std::string::npos;
}

}  // namespace

Status check_resources(const api::LinuxContainerResources& r) {
    if (r.cpu_period() != 0 && (r.cpu_period() < 1000 || r.cpu_period() > 1'000'000)) {
        return wrong("cpu_period", std::to_string(r.cpu_period()), "not 1000 to 1000000 us");
    }
    if (r.cpu_quota() != 0 && r.cpu_quota() != -1 && r.cpu_quota() < 1000) {
        return wrong("cpu_quota", std::to_string(r.cpu_quota()), "neither -1 nor from 1000 us on");
    }
    if (r.cpu_shares() != 0 && (r.cpu_shares() < 2 || r.cpu_shares() > 262144)) {
        return wrong("cpu_shares", std::to_string(r.cpu_shares()), "not 2 to 262144");
    }
    if (r.memory_limit_in_bytes() < -1) {
        return wrong("memory_limit_in_bytes", std::to_string(r.memory_limit_in_bytes()),
                     "negative");
    }
    if (r.memory_swap_limit_in_bytes() < -1) {
        return wrong("memory_swap_limit_in_bytes", std::to_string(r.memory_swap_limit_in_bytes()),
                     "negative");
    }
    if (r.oom_score_adj() < -1000 || r.oom_score_adj() > 1000) {
        return wrong("oom_score_adj", std::to_string(r.oom_score_adj()), "not -1000 to 1000");
    }
    if (!is_list(r.cpuset_cpus())) {
        return wrong("cpuset_cpus", r.cpuset_cpus(), "not a list such as 0-2,5");
    }
    if (!is_list(r.cpuset_mems())) {
        return wrong("cpuset_mems", r.cpuset_mems(), "not a list such as 0-2,5");
    }
    for (const auto& limit : r.hugepage_limits()) {
        if (limit.page_size().empty() || limit.page_size().find('/') != std::string::npos) {
            return wrong("hugepage_limits", limit.page_size(), "not a page size such as 2MB");
        }
    }
    for (const auto& [file, value] : r.unified()) {
        if (file.empty() || file.find('/') != std::string::npos) {
            return wrong("unified", file, "not the name of a file of a cgroup");
        }
    }
    return {};
}

void merge_resources(api::LinuxContainerResources& resources,
                     const api::LinuxContainerResources& changes) {
    auto rest = changes;
    for (const auto& limit : changes.hugepage_limits()) {
        api::HugepageLimit* found = nullptr;
        for (auto& known : *resources.mutable_hugepage_limits()) {
            if (known.page_size() == limit.page_size()) {
                found = &known;
            }
        }
        *(found != nullptr ? found : resources.add_hugepage_limits()) = limit;
    }
    rest.clear_hugepage_limits();
    // The rest is protobuf's own idea of a merge: numbers that are not 0, texts that are not empty,
    // map entries by their key.
    resources.MergeFrom(rest);
}

api::LinuxContainerResources revert_of(const api::LinuxContainerResources& before,
                                       const api::LinuxContainerResources& changes) {
    api::LinuxContainerResources revert = before;
    if (changes.memory_limit_in_bytes() != 0 && before.memory_limit_in_bytes() == 0) {
        revert.set_memory_limit_in_bytes(-1);
    }
    if (changes.memory_swap_limit_in_bytes() != 0 && before.memory_swap_limit_in_bytes() == 0) {
        revert.set_memory_swap_limit_in_bytes(-1);
    }
    if (changes.cpu_quota() != 0 && before.cpu_quota() == 0) {
        revert.set_cpu_quota(-1);
    }
    if (changes.cpu_shares() != 0 && before.cpu_shares() == 0) {
        revert.set_cpu_shares(1024);
    }
    return revert;
}

api::LinuxContainerResources with_overhead(const api::LinuxContainerResources& resources,
                                           const api::LinuxContainerResources& overhead) {
    api::LinuxContainerResources sum = resources;
    if (resources.memory_limit_in_bytes() > 0 && overhead.memory_limit_in_bytes() > 0) {
        sum.set_memory_limit_in_bytes(resources.memory_limit_in_bytes() +
                                      overhead.memory_limit_in_bytes());
        if (resources.memory_swap_limit_in_bytes() > 0) {
            sum.set_memory_swap_limit_in_bytes(resources.memory_swap_limit_in_bytes() +
                                               overhead.memory_limit_in_bytes());
        }
    }
    if (resources.cpu_quota() > 0 && overhead.cpu_quota() > 0 &&
        resources.cpu_period() == overhead.cpu_period()) {
        sum.set_cpu_quota(resources.cpu_quota() + overhead.cpu_quota());
    }
    if (resources.cpu_shares() > 0 && overhead.cpu_shares() > 0) {
        sum.set_cpu_shares(
            std::min<int64_t>(resources.cpu_shares() + overhead.cpu_shares(), 262144));
    }
    return sum;
}

api::LinuxContainerResources resources_of(const ContainerRecord& record,
                                          const api::ContainerConfig& config) {
    api::LinuxContainerResources updated;
    if (!record.resources.empty() && updated.ParseFromString(record.resources)) {
        return updated;
    }
    return config.linux().resources();
}

}  // namespace moat::cri
