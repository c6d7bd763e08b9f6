#include "cri/images/hosts.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include <toml++/toml.h>

#include "cri/base/files.h"

namespace moat::cri {

namespace {

constexpr size_t kMaxHosts = 64;

bool is_url(const std::string& text) {
    return (text.rfind("http://", 0) == 0 && text.size() > 7) ||
           (text.rfind("https://", 0) == 0 && text.size() > 8);
}

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() &&
           text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void set_url(RegistryEndpoint& endpoint, std::string url, bool override_path) {
    while (!url.empty() && url.back() == '/') {
        url.pop_back();
    }
    const bool has_api = ends_with(url, "/v2");
    endpoint.root = override_path || has_api ? url : url + "/v2";
    endpoint.url = has_api ? url.substr(0, url.size() - 3) : url;
}

RegistryEndpoint endpoint_of(const std::string& url) {
    RegistryEndpoint endpoint;
    set_url(endpoint, url, false);
    return endpoint;
}

/// Reads one table of the file, the top or a host's. Every complaint has its line.
class TableReader {
  public:
    TableReader(const toml::table& table, const std::string& directory)
        : table_(table), directory_(directory) {}

    /// `url` is the server's, empty when there is none.
    Result<RegistryEndpoint> read(std::string url) {
        RegistryEndpoint endpoint;
        bool override_path = false;
        for (const auto& [key, node] : table_) {
            const std::string name(key.str());
            if (name == "host" || name == "server") {
                continue;  // of the top, taken by the caller
            }
            if (name == "capabilities") {
                TRY(capabilities(endpoint, node));
            } else if (name == "skip_verify") {
                endpoint.tls.skip_verify = TRY(boolean(name, node));
            } else if (name == "override_path") {
                override_path = TRY(boolean(name, node));
            } else if (name == "ca") {
                for (const std::string& file : TRY(strings(name, node))) {
                    endpoint.tls.ca.push_back(file_name(file));
                }
            } else if (name == "client") {
                endpoint.tls.client = TRY(client(node));
            } else if (name == "header") {
                endpoint.headers = TRY(headers(node));
            } else if (name == "dial_timeout") {
                TRY(strings(name, node));
            } else {
                return wrong(node, "unknown setting " + name);
            }
        }
        if (!url.empty()) {
            if (url.find("://") == std::string::npos) {
                url = "https://" + url;
            }
            if (!is_url(url)) {
                return invalid_argument("line " + std::to_string(table_.source().begin.line) +
                                        ": not an http or https URL: " + url);
            }
            set_url(endpoint, url, override_path);
        }
        return endpoint;
    }

    static Error wrong(const toml::node& node, const std::string& what) {
        return invalid_argument("line " + std::to_string(node.source().begin.line) + ": " + what);
    }

  private:
    static Result<bool> boolean(const std::string& key, const toml::node& node) {
        if (!node.is_boolean()) {
            return wrong(node, key + ": neither true nor false");
        }
        return **node.as_boolean();
    }
    /// One string or a list of them.
    static Result<std::vector<std::string>> strings(const std::string& key,
                                                    const toml::node& node) {
        std::vector<std::string> result;
        if (const auto* text = node.as_string()) {
            return std::vector<std::string>{**text};
        }
        if (const auto* list = node.as_array()) {
            for (const toml::node& entry : *list) {
                if (!entry.is_string()) {
                    return wrong(node, key + ": not a string or a list of strings");
                }
                result.push_back(**entry.as_string());
            }
            return result;
        }
        return wrong(node, key + ": not a string or a list of strings");
    }
    std::string file_name(const std::string& name) const {
        return name.empty() || name.front() == '/' ? name : directory_ + "/" + name;
    }
    static Status capabilities(RegistryEndpoint& endpoint, const toml::node& node) {
        endpoint.may_pull = endpoint.may_resolve = false;
        for (const std::string& word : TRY(strings("capabilities", node))) {
            if (word == "pull") {
                endpoint.may_pull = true;
            } else if (word == "resolve") {
                endpoint.may_resolve = true;
            } else if (word != "push" && word != "referrers") {
                return wrong(node, "capabilities: unknown: " + word);
            }
        }
        return {};
    }
    /// "both.pem", ["both.pem", ...] or [["certificate.pem", "key.pem"], ...].
    Result<std::vector<std::pair<std::string, std::string>>> client(const toml::node& node) const {
        std::vector<std::pair<std::string, std::string>> pairs;
        if (const auto* text = node.as_string()) {
            pairs.emplace_back(file_name(**text), "");
            return pairs;
        }
        const auto* list = node.as_array();
        if (list == nullptr) {
            return wrong(node, "client: neither a file nor a list of files or of pairs of them");
        }
        for (const toml::node& entry : *list) {
            if (const auto* text = entry.as_string()) {
                pairs.emplace_back(file_name(**text), "");
                continue;
            }
            const auto names = TRY(strings("client", entry));
            if (names.empty() || names.size() > 2) {
                return wrong(entry, "client: not a pair of certificate and key");
            }
            pairs.emplace_back(file_name(names[0]), names.size() == 2 ? file_name(names[1]) : "");
        }
        return pairs;
    }
    static Result<std::vector<std::pair<std::string, std::string>>> headers(
        const toml::node& node) {
        const auto* table = node.as_table();
        if (table == nullptr) {
            return wrong(node, "header: not a table");
        }
        std::vector<std::pair<std::string, std::string>> result;
        for (const auto& [key, value] : *table) {
            const std::string name(key.str());
            for (const std::string& text : TRY(strings("header", value))) {
                if (name.find_first_of(": \r\n") != std::string::npos ||
                    text.find_first_of("\r\n") != std::string::npos) {
                    return wrong(value, "header: " + name + ": not one line");
                }
                result.emplace_back(name, text);
            }
        }
        return result;
    }

    const toml::table& table_;
    const std::string& directory_;
};

/// Docker's way, which containerd has too: a directory without a hosts.toml holds *.crt to trust
/// and NAME.cert with NAME.key to show.
TlsFiles docker_certificates(const std::string& directory) {
    TlsFiles files;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
    while (const dirent* entry = dir == nullptr ? nullptr : readdir(dir.get())) {
        const std::string path = directory + "/" + entry->d_name;
        if (ends_with(path, ".crt")) {
            files.ca.push_back(path);
        } else if (ends_with(path, ".cert")) {
            files.client.emplace_back(path, path.substr(0, path.size() - 5) + ".key");
        }
    }
    std::sort(files.ca.begin(), files.ca.end());
    std::sort(files.client.begin(), files.client.end());
    return files;
}

}  // namespace

Result<HostsFile> parse_hosts_file(const std::string& text, const std::string& directory) {
    toml::table top;
    try {
        top = toml::parse(text);
    } catch (const toml::parse_error& e) {
        return invalid_argument("line " + std::to_string(e.source().begin.line) + ": " +
                                std::string(e.description()));
    }
    HostsFile file;
    std::string server;
    if (const toml::node* node = top.get("server")) {
        if (!node->is_string()) {
            return TableReader::wrong(*node, "server: not a string");
        }
        server = **node->as_string();
    }
    file.server = TRY(TableReader(top, directory).read(server));
    const toml::node* hosts = top.get("host");
    if (hosts == nullptr) {
        return file;
    }
    if (!hosts->is_table()) {
        return TableReader::wrong(*hosts, "host: not a table");
    }
    // The parser keeps tables by name; the order that counts is the file's.
    std::vector<std::pair<std::string, const toml::table*>> tables;
    for (const auto& [key, node] : *hosts->as_table()) {
        if (!node.is_table()) {
            return TableReader::wrong(node, "host." + std::string(key.str()) + ": not a table");
        }
        tables.emplace_back(key.str(), node.as_table());
    }
    if (tables.size() > kMaxHosts) {
        return invalid_argument("more than " + std::to_string(kMaxHosts) + " hosts");
    }
    std::sort(tables.begin(), tables.end(), [](const auto& a, const auto& b) {
        const auto place = [](const toml::table* table) {
            return std::pair(table->source().begin.line, table->source().begin.column);
        };
        return place(a.second) < place(b.second);
    });
    for (const auto& [url, table] : tables) {
        if (url.empty()) {
            return TableReader::wrong(*table, "host: without a URL");
        }
        file.hosts.push_back(TRY(TableReader(*table, directory).read(url)));
    }
    return file;
}

std::string default_registry_url(const std::string& host) {
    if (host == "docker.io") {
        return "https://registry-1.docker.io";
    }
    const std::string name = host.substr(0, host.rfind(':'));
    const bool loopback =
        name == "localhost" || name.rfind("127.", 0) == 0 || name == "[::1]" || host == "localhost";
    return (loopback && !ends_with(host, ":443") ? "http://" : "https://") + host;
}

RegistryHosts::RegistryHosts(std::string directory, const std::vector<std::string>& mirrors)
    : directory_(std::move(directory)) {
    for (const std::string& mirror : mirrors) {
        const size_t equals = mirror.find('=');
        const std::string url = equals == std::string::npos ? "" : mirror.substr(equals + 1);
        if (equals == 0 || !is_url(url)) {
            check_ = invalid_argument("--registry-mirror " + mirror +
                                      ": not HOST=URL with http:// or https://");
            return;
        }
        mirrors_.emplace_back(mirror.substr(0, equals), url);
    }
}

Result<std::vector<RegistryEndpoint>> RegistryHosts::endpoints(const std::string& host) const {
    std::vector<RegistryEndpoint> result;
    for (const auto& [name, url] : mirrors_) {
        if (name == host) {
            result.push_back(endpoint_of(url));
        }
    }
    RegistryEndpoint server;
    // "_" for ":" is containerd's other spelling, for file systems without colons.
    std::string plain = host;
    std::replace(plain.begin(), plain.end(), ':', '_');
    for (const std::string& name : {plain + "_", host, std::string("_default")}) {
        const std::string directory = directory_ + "/" + name;
        if (directory_.empty() || access(directory.c_str(), F_OK) != 0) {
            continue;
        }
        const std::string path = directory + "/hosts.toml";
        if (access(path.c_str(), F_OK) == 0) {
            const std::string text = TRY(read_file(path, 1 << 20));
            HostsFile file = TRY_STEP(path, parse_hosts_file(text, directory));
            result.insert(result.end(), file.hosts.begin(), file.hosts.end());
            server = std::move(file.server);
        } else {
            server.tls = docker_certificates(directory);
        }
        break;
    }
    if (server.url.empty()) {
        const bool override_path = false;
        set_url(server, default_registry_url(host), override_path);
    }
    result.push_back(std::move(server));
    std::erase_if(result, [](const RegistryEndpoint& endpoint) { return !endpoint.may_pull; });
    if (result.empty()) {
        return invalid_argument("no server of " + host + " may be pulled from (capabilities)");
    }
    result.back().last = true;
    return result;
}

}  // namespace moat::cri
