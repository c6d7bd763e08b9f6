#include "cri/images/hosts.h"

#include <unistd.h>

#include "cri/base/files.h"

namespace moat::cri {

namespace {

bool is_url(const std::string& text) {
    return (text.rfind("http://", 0) == 0 && text.size() > 7) ||
           (text.rfind("https://", 0) == 0 && text.size() > 8);
}

std::string trim(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) {
        return "";
    }
    return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

/// Without a comment: from the first # outside of quotes on.
std::string_view without_comment(std::string_view line) {
    char quote = 0;
    for (size_t i = 0; i < line.size(); ++i) {
        if (quote != 0) {
            quote = line[i] == quote ? 0 : quote;
        } else if (line[i] == '"' || line[i] == '\'') {
            quote = line[i];
        } else if (line[i] == '#') {
            return line.substr(0, i);
        }
    }
    return line;
}

/// A quoted string without escapes: URLs and paths need none.
Result<std::string> unquote(const std::string& text) {
    const bool quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
                        text.back() == text.front();
    if (!quoted || text.find('\\') != std::string::npos ||
        text.substr(1, text.size() - 2).find(text.front()) != std::string::npos) {
        return invalid_argument("not a plain quoted string: " + text);
    }
    return text.substr(1, text.size() - 2);
}

Result<std::string> url_value(const std::string& value) {
    std::string url = TRY(unquote(value));
    if (url.find("://") == std::string::npos) {
        url = "https://" + url;
    }
    if (!is_url(url)) {
        return invalid_argument("not an http or https URL: " + url);
    }
    while (url.back() == '/') {
        url.pop_back();
    }
    return url;
}

struct HostsParser {
    HostsFile file;
    RegistryEndpoint* current = nullptr;
    std::vector<bool> may_pull;

    Status section(const std::string& line) {
        const std::string name = trim(std::string_view(line).substr(1, line.size() - 2));
        if (line.back() != ']' || name.rfind("host.", 0) != 0) {
            return invalid_argument("unknown section " + line);
        }
        file.hosts.push_back({TRY(url_value(trim(name.substr(5)))), false, "", false});
        may_pull.push_back(true);
        current = &file.hosts.back();
        return {};
    }

    Status setting(const std::string& key, const std::string& value) {
        if (key == "server" && current == nullptr) {
            file.server = TRY(url_value(value));
        } else if (key == "capabilities" && current != nullptr) {
            may_pull.back() = value.find("\"pull\"") != std::string::npos;
        } else if (key == "skip_verify" && current != nullptr &&
                   (value == "true" || value == "false")) {
            current->skip_verify = value == "true";
        } else if (key == "override_path" && current != nullptr &&
                   (value == "true" || value == "false")) {
            current->override_path = value == "true";
        } else if (key == "ca" && current != nullptr) {
            current->ca_file = TRY(unquote(value));
        } else {
            return invalid_argument("unknown setting " + key + " = " + value);
        }
        return {};
    }
};

}  // namespace

Result<HostsFile> parse_hosts_file(const std::string& text) {
    HostsParser parser;
    size_t number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = trim(without_comment(std::string_view(text).substr(at, end - at)));
        at = end + 1;
        ++number;
        if (line.empty()) {
            continue;
        }
        const std::string step = "line " + std::to_string(number);
        const size_t equals = line.find('=');
        if (line.front() == '[') {
            TRY_STEP(step, parser.section(line));
        } else if (equals != std::string::npos) {
            TRY_STEP(step,
                     parser.setting(trim(line.substr(0, equals)), trim(line.substr(equals + 1))));
        } else {
            return invalid_argument(step + ": neither a section nor a setting: " + line);
        }
    }
    HostsFile file;
    file.server = parser.file.server;
    for (size_t i = 0; i < parser.file.hosts.size(); ++i) {
        if (parser.may_pull[i]) {
            file.hosts.push_back(std::move(parser.file.hosts[i]));
        }
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
    return (loopback ? "http://" : "https://") + host;
}

RegistryHosts::RegistryHosts(std::string directory, const std::vector<std::string>& mirrors)
    : directory_(std::move(directory)) {
    for (const std::string& mirror : mirrors) {
        const size_t equals = mirror.find('=');
        std::string url = equals == std::string::npos ? "" : mirror.substr(equals + 1);
        while (!url.empty() && url.back() == '/') {
            url.pop_back();
        }
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
            result.push_back({url, false, "", false});
        }
    }
    std::string server = default_registry_url(host);
    for (const std::string& name : {host, std::string("_default")}) {
        const std::string path = directory_ + "/" + name + "/hosts.toml";
        if (directory_.empty() || access(path.c_str(), F_OK) != 0) {
            continue;
        }
        const std::string text = TRY(read_file(path, 1 << 20));
        HostsFile file = TRY_STEP(path, parse_hosts_file(text));
        result.insert(result.end(), file.hosts.begin(), file.hosts.end());
        if (!file.server.empty()) {
            server = file.server;
        }
        break;
    }
    result.push_back({server, false, "", false});
    return result;
}

}  // namespace moat::cri
