#include "cri/cdi/specs.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <set>

#include "cri/base/files.h"
#include "cri/base/texts.h"

namespace moat::cri {

namespace {

using nlohmann::json;

constexpr size_t kLargestSpec = 4 << 20;
/// An alias stands for all that it names, so a short file can be a long document.
constexpr int kMostNodes = 100'000;
constexpr int kDeepest = 64;

bool has_suffix(const std::string& name, std::string_view suffix) {
    return name.size() > suffix.size() && std::string_view(name).ends_with(suffix);
}

/// YAML's values as JSON's: what is not in quotes may be a number, a truth value or nothing.
Result<json> to_json(const YAML::Node& node, int& nodes, int depth) {
    if (--nodes < 0 || depth > kDeepest) {
        return invalid_argument("more than a device specification has");
    }
    switch (node.Type()) {
        case YAML::NodeType::Scalar: {
            if (node.Tag() == "!") {
                return json(node.Scalar());
            }
            int64_t number = 0;
            bool truth = false;
            if (YAML::convert<int64_t>::decode(node, number)) {
                return json(number);
            }
            if (YAML::convert<bool>::decode(node, truth)) {
                return json(truth);
            }
            return json(node.Scalar());
        }
        case YAML::NodeType::Sequence: {
            json list = json::array();
            for (const YAML::Node& element : node) {
                list.push_back(TRY(to_json(element, nodes, depth + 1)));
            }
            return list;
        }
        case YAML::NodeType::Map: {
            json map = json::object();
            for (const auto& entry : node) {
                if (!entry.first.IsScalar()) {
                    return invalid_argument("a key that is not a word");
                }
                map[entry.first.Scalar()] = TRY(to_json(entry.second, nodes, depth + 1));
            }
            return map;
        }
        default:
            return json();
    }
}

Result<json> parse(const std::string& text, bool yaml) {
    if (!yaml) {
        json parsed = json::parse(text, nullptr, false);
        return parsed.is_object() ? Result<json>(std::move(parsed))
                                  : invalid_argument("not a JSON object");
    }
    try {
        int nodes = kMostNodes;
        json parsed = TRY(to_json(YAML::Load(text), nodes, 0));
        return parsed.is_object() ? Result<json>(std::move(parsed))
                                  : invalid_argument("not a YAML mapping");
    } catch (const YAML::Exception& e) {
        return invalid_argument(std::string("not YAML: ") + e.what());
    }
}

bool is_word(std::string_view text, std::string_view inside, bool begins_with_letter) {
    const auto plain = [](char c) { return isalnum(static_cast<unsigned char>(c)) != 0; };
    return !text.empty() && plain(text.back()) &&
           (begins_with_letter ? isalpha(static_cast<unsigned char>(text.front())) != 0
                               : plain(text.front())) &&
           std::all_of(text.begin(), text.end(), [&](char c) {
               return plain(c) || inside.find(c) != std::string_view::npos;
           });
}

/// "vendor.com/class"
bool is_kind(std::string_view kind) {
    const size_t slash = kind.find('/');
    return slash != std::string_view::npos && is_word(kind.substr(0, slash), "-_.", true) &&
           is_word(kind.substr(slash + 1), "-_", true);
}

/// "vendor.com/class=device"
bool is_qualified_name(std::string_view name) {
    const size_t equals = name.find('=');
    return equals != std::string_view::npos && is_kind(name.substr(0, equals)) &&
           is_word(name.substr(equals + 1), "-_.:", false);
}

/// The versions of the specification that there are; what a later one means is not known.
bool is_version(const std::string& version) {
    static const std::set<std::string> kKnown = {"0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0",
                                                 "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"};
    return kKnown.contains(version.rfind('v', 0) == 0 ? version.substr(1) : version);
}

std::string text_at(const json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

json object_at(const json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() ? *it : json::object();
}

using Devices = std::map<std::string, CdiDevice>;

/// NONBLOCK: nobody has to write to a FIFO that lies there.
Result<std::string> read_spec_file(const std::string& path) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    struct stat st {};
    if (!fd || fstat(fd.get(), &st) != 0) {
        return Error::from_errno(errno, "open");
    }
    if (!S_ISREG(st.st_mode)) {
        return invalid_argument("not a regular file");
    }
    return read_fd(fd.get(), kLargestSpec, path);
}

/// Adds the devices of one file. Two files of a directory that have the same device make it
/// `ambiguous`.
Status read_spec(const std::string& directory, const std::string& name, Devices& devices,
                 std::set<std::string>& ambiguous) {
    const std::string file = directory + "/" + name;
    const std::string text = TRY(read_spec_file(file));
    const json spec = TRY(parse(text, has_suffix(name, ".yaml")));
    if (const std::string version = text_at(spec, "cdiVersion"); !is_version(version)) {
        return invalid_argument("cdiVersion " + in_quotes(version) + ": not known");
    }
    const std::string kind = text_at(spec, "kind");
    if (!is_kind(kind)) {
        return invalid_argument("kind " + in_quotes(kind) + ": not of the form vendor.com/class");
    }
    const auto common = std::make_shared<const json>(object_at(spec, "containerEdits"));
    const json list = object_at(spec, "devices");
    for (const json& device : list) {
        const std::string qualified = kind + "=" + text_at(device, "name");
        if (!device.is_object() || !is_qualified_name(qualified)) {
            return invalid_argument("devices: name " + in_quotes(qualified) + ": not one");
        }
        CdiDevice found{qualified, file, common, object_at(device, "containerEdits")};
        if (!devices.try_emplace(qualified, std::move(found)).second) {
            ambiguous.insert(qualified);
        }
    }
    return {};
}

}  // namespace

std::vector<std::string> split_cdi_names(const std::string& value) {
    std::vector<std::string> names;
    for (size_t at = 0; at <= value.size();) {
        const size_t end = std::min(value.find(',', at), value.size());
        names.push_back(value.substr(at, end - at));
        at = end + 1;
    }
    return names;
}

Result<std::vector<CdiDevice>> find_cdi_devices(const std::vector<std::string>& directories,
                                                const std::vector<std::string>& names,
                                                const std::string& field) {
    for (const std::string& name : names) {
        if (!is_qualified_name(name)) {
            return invalid_argument(field + ": " + in_quotes(name) +
                                    ": not of the form vendor.com/class=device");
        }
    }
    Devices all;
    std::set<std::string> ambiguous;
    std::string unread;
    std::string where;
    for (const std::string& directory : directories) {
        where += (where.empty() ? "" : ", ") + directory;
        DIR* listing = opendir(directory.c_str());
        if (listing == nullptr) {
            if (errno != ENOENT) {
                unread += "; " + directory + ": " + strerror(errno);
            }
            continue;
        }
        std::vector<std::string> files;
        while (const dirent* entry = readdir(listing)) {
            if (has_suffix(entry->d_name, ".json") || has_suffix(entry->d_name, ".yaml")) {
                files.emplace_back(entry->d_name);
            }
        }
        closedir(listing);
        std::sort(files.begin(), files.end());
        Devices here;
        std::set<std::string> twice;
        for (const std::string& file : files) {
            if (const Status read = read_spec(directory, file, here, twice); !read.ok()) {
                unread += "; not read: " + directory + "/" + file + ": " + read.error().message();
            }
        }
        for (auto& [name, device] : here) {
            ambiguous.erase(name);
            all.insert_or_assign(name, std::move(device));
        }
        ambiguous.insert(twice.begin(), twice.end());
    }
    std::vector<CdiDevice> found;
    std::set<std::string> seen;
    for (const std::string& name : names) {
        if (!seen.insert(name).second) {
            continue;
        }
        const auto it = all.find(name);
        if (it == all.end()) {
            return invalid_argument(field + ": " + in_quotes(name) + ": no such device in " +
                                    where + unread);
        }
        if (ambiguous.contains(name)) {
            return invalid_argument(field + ": " + in_quotes(name) +
                                    ": two specifications have it, " + it->second.file + " is one");
        }
        found.push_back(it->second);
    }
    return found;
}

}  // namespace moat::cri
