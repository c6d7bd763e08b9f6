#include "cri/pods/pod_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include "api.pb.h"
#include "cri/base/files.h"

namespace moat::cri {

std::string pod_hostname(const api::PodSandboxConfig& config, const std::string& pod_id) {
    if (!config.hostname().empty()) {
        return config.hostname();
    }
    if (config.linux().security_context().namespace_options().network() == api::NODE) {
        char name[65] = {};
        if (gethostname(name, sizeof(name) - 1) == 0) {
            return name;
        }
    }
    return pod_id.substr(0, 12);
}

Result<std::string> resolv_conf(const api::PodSandboxConfig& config) {
    const auto& dns = config.dns_config();
    std::string text;
    const auto one_word = [](const std::string& word) {
        return !word.empty() && word.find_first_of(" \t\r\n") == std::string::npos;
    };
    const auto words = [&](const char* keyword, const auto& list, const char* field) -> Status {
        std::string line;
        for (const std::string& word : list) {
            if (!one_word(word)) {
                return invalid_argument(std::string("config.dns_config.") + field + ": \"" + word +
                                        "\"");
            }
            line += " " + word;
        }
        if (!line.empty()) {
            text += keyword + line + "\n";
        }
        return {};
    };
    TRY(words("search", dns.searches(), "searches"));
    for (const std::string& server : dns.servers()) {
        if (!one_word(server)) {
            return invalid_argument("config.dns_config.servers: \"" + server + "\"");
        }
        text += "nameserver " + server + "\n";
    }
    TRY(words("options", dns.options(), "options"));
    if (text.empty()) {
        // No word about DNS means the node's.
        auto node = read_file("/etc/resolv.conf", 1 << 20);
        return node.ok() ? std::move(node).value() : std::string();
    }
    return text;
}

Status write_pod_files(const std::string& directory, const api::PodSandboxConfig& config,
                       const std::string& hostname, const std::vector<std::string>& ips,
                       bool node_network) {
    std::string hosts;
    if (node_network) {
        auto node = read_file("/etc/hosts", 1 << 20);
        hosts = node.ok() ? std::move(node).value() : std::string();
    } else {
        hosts =
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\n"
            "ff02::1\tip6-allnodes\n"
            "ff02::2\tip6-allrouters\n";
        for (const std::string& ip : ips) {
            hosts += ip + "\t" + hostname + "\n";
        }
    }
    TRY_HOST("files of the pod", make_directories(directory, 0755));
    TRY_HOST("files of the pod", write_file(directory + "/hosts", hosts));
    TRY_HOST("files of the pod", write_file(directory + "/hostname", hostname + "\n"));
    const std::string resolv = TRY(resolv_conf(config));
    TRY_HOST("files of the pod", write_file(directory + "/resolv.conf", resolv));
    const std::string shm = directory + "/shm";
    if ((mkdir(shm.c_str(), 01777) != 0 && errno != EEXIST) || chmod(shm.c_str(), 01777) != 0) {
        return host_error(Error::from_errno(errno, "mkdir " + shm), "files of the pod");
    }
    return {};
}

}  // namespace moat::cri
