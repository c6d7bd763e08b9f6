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

Result<std::string> resolv_conf(const api::PodSandboxConfig& config, const CniDns& network_dns) {
    const auto& dns = config.dns_config();
    CniDns chosen{{dns.servers().begin(), dns.servers().end()},
                  {dns.searches().begin(), dns.searches().end()},
                  {dns.options().begin(), dns.options().end()}};
    const char* source = "config.dns_config.";
    if (chosen.empty()) {
        chosen = network_dns;
        source = "CNI result: dns.";
    }
    std::string text;
    const auto words = [&](const char* keyword, const std::vector<std::string>& list,
                           const char* field) -> Status {
        std::string line;
        for (const std::string& word : list) {
            if (word.empty() || word.find_first_of(" \t\r\n") != std::string::npos) {
                return invalid_argument(source + std::string(field) + ": \"" + word + "\"");
            }
            line += " " + word;
        }
        if (!line.empty()) {
            text += keyword + line + "\n";
        }
        return {};
    };
    TRY(words("search", chosen.searches, "searches"));
    for (const std::string& server : chosen.servers) {
        TRY(words("nameserver", {server}, "servers"));
    }
    TRY(words("options", chosen.options, "options"));
    if (text.empty()) {
        // No word about DNS means the node's.
        auto node = read_file("/etc/resolv.conf", 1 << 20);
        return node.ok() ? std::move(node).value() : std::string();
    }
    return text;
}

Status write_pod_files(const std::string& directory, const api::PodSandboxConfig& config,
                       const std::string& hostname, const std::vector<std::string>& ips,
                       bool node_network, const CniDns& network_dns) {
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
    const std::string resolv = TRY(resolv_conf(config, network_dns));
    TRY_HOST("files of the pod", write_file(directory + "/resolv.conf", resolv));
    const std::string shm = directory + "/shm";
    if ((mkdir(shm.c_str(), 01777) != 0 && errno != EEXIST) || chmod(shm.c_str(), 01777) != 0) {
        return host_error(Error::from_errno(errno, "mkdir " + shm), "files of the pod");
    }
    return {};
}

Status give_pod_files(const std::string& directory, uint32_t uid, uint32_t gid) {
    for (const char* name : {"/hosts", "/hostname", "/resolv.conf", "/shm"}) {
        if (chown((directory + name).c_str(), uid, gid) != 0) {
            return host_error(Error::from_errno(errno, "chown " + directory + name),
                              "files of the pod");
        }
    }
    return {};
}

}  // namespace moat::cri
