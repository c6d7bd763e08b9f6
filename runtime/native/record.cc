#include "runtime/native/record.h"

#include <fcntl.h>
#include <stdlib.h>

#include "kernel/control/messages.h"
#include "runtime/util/files.h"

namespace moat::runtime {

using control::Json;

namespace {

Json to_json(const ProcessRef& process) {
    return {{"pid", process.pid}, {"start_time", process.start_time}};
}

ProcessRef process_of(const Json& json, const char* key) {
    const Json& value = json.at(key);
    return {value.at("pid").get<pid_t>(), value.at("start_time").get<uint64_t>()};
}

Status save_json(const std::string& directory, const std::string& name, const Json& json) {
    const ScopedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + directory);
    }
    return replace_file(fd.get(), name, json.dump(1, ' ', false, Json::error_handler_t::replace),
                        Durability::kProcess);
}

template <typename Record, typename Read>
Result<Record> load_json(const std::string& directory, const Read& read) {
    const std::string file = directory + "/record.json";
    const std::string text = TRY(read_whole_file(file));
    try {
        Record record;
        read(Json::parse(text), record);
        return record;
    } catch (const Json::exception& e) {
        return Error(EIO, file + ": " + e.what());
    }
}

}  // namespace

Status NativePod::save(const std::string& directory) const {
    Json json = {{"id", id},
                 {"cgroup", cgroup},
                 {"cgroup_directories", cgroup_directories},
                 {"network_namespace", network_namespace},
                 {"host_ipc", host_ipc},
                 {"shm", shm},
                 {"pause", to_json(pause)}};
    if (mapped_root) {
        json["mapped_root"] = {{"uid", mapped_root->uid}, {"gid", mapped_root->gid}};
    }
    return save_json(directory, "record.json", json);
}

Result<NativePod> NativePod::load(const std::string& directory) {
    return load_json<NativePod>(directory, [](const Json& json, NativePod& pod) {
        pod.id = json.at("id");
        pod.cgroup = json.at("cgroup");
        pod.cgroup_directories = json.at("cgroup_directories").get<std::vector<std::string>>();
        pod.network_namespace = json.at("network_namespace");
        pod.host_ipc = json.at("host_ipc");
        if (const auto root = json.find("mapped_root"); root != json.end()) {
            pod.mapped_root = MappedRoot{root->at("uid"), root->at("gid")};
        }
        pod.shm = json.at("shm");
        pod.pause = process_of(json, "pause");
    });
}

Status NativeContainer::save(const std::string& directory) const {
    return save_json(directory, "record.json",
                     {{"id", id},
                      {"pod", pod_id},
                      {"bundle", bundle},
                      {"cgroup", cgroup},
                      {"created_at_ns", created_at_ns},
                      {"complete", complete}});
}

Result<NativeContainer> NativeContainer::load(const std::string& directory) {
    return load_json<NativeContainer>(directory, [](const Json& json, NativeContainer& container) {
        container.id = json.at("id");
        container.pod_id = json.at("pod");
        container.bundle = json.at("bundle");
        container.cgroup = json.at("cgroup");
        container.created_at_ns = json.at("created_at_ns");
        container.complete = json.at("complete");
    });
}

std::optional<control::ExitStatus> read_exit(const std::string& events, const std::string& id) {
    const auto text = read_whole_file(events + "/" + id + ".exit");
    if (!text.ok()) {
        return std::nullopt;
    }
    const Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object()) {
        return std::nullopt;
    }
    control::ExitStatus exit;
    exit.code = static_cast<int32_t>(control::get_int(json, "code"));
    exit.signal = static_cast<int32_t>(control::get_int(json, "signal"));
    exit.oom_killed = json.value("oom", false);
    exit.finished_at_ns = control::get_int(json, "finished_at_ns");
    return exit;
}

Status write_exit(const std::string& events, const std::string& id,
                  const control::ExitStatus& exit) {
    return save_json(events, id + ".exit",
                     {{"code", exit.code},
                      {"signal", exit.signal},
                      {"oom", exit.oom_killed},
                      {"finished_at_ns", exit.finished_at_ns}});
}

ProcessRef read_monitor(const std::string& events, const std::string& id) {
    const auto text = read_whole_file(events + "/" + id + ".monitor");
    if (!text.ok()) {
        return {};
    }
    char* end;
    const auto pid = static_cast<pid_t>(strtol(text->c_str(), &end, 10));
    return {pid, strtoull(end, nullptr, 10)};
}

}  // namespace moat::runtime
