#include "cri/config/config_file.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <charconv>
#include <set>

#include "cri/base/files.h"
#include "cri/config/setting_table.h"
#include "cri/images/hosts.h"

namespace moat::cri {

namespace {

constexpr size_t kMaxFile = 1 << 20;

Error at(const std::string& name, const toml::source_region& source, const std::string& what) {
    return invalid_argument(name + ":" + std::to_string(source.begin.line) + ": " + what);
}

const char* type_name(toml::node_type type) {
    switch (type) {
        case toml::node_type::string:
            return "a string";
        case toml::node_type::boolean:
            return "a boolean";
        case toml::node_type::integer:
            return "an integer";
        case toml::node_type::floating_point:
            return "a float";
        case toml::node_type::array:
            return "a list";
        case toml::node_type::table:
            return "a table";
        default:
            return "a date or time";
    }
}

bool is_one_of(const std::string& value, std::string_view values) {
    for (size_t at = 0; at <= values.size();) {
        const size_t end = std::min(values.find('|', at), values.size());
        if (values.substr(at, end - at) == value) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

/// What the table asks of a value besides its type.
Status check_value(const Setting& setting, const std::string& value) {
    if (*setting.values != 0 && !is_one_of(value, setting.values)) {
        return invalid_argument("\"" + value + "\": not one of " + setting.values);
    }
    return {};
}
Status check_value(const Setting& setting, int64_t value) {
    if (value < setting.min || value > setting.max) {
        return invalid_argument(std::to_string(value) + ": not from " +
                                std::to_string(setting.min) + " to " + std::to_string(setting.max));
    }
    return {};
}

Status wrong_type(const char* wanted, const toml::node& node) {
    return invalid_argument(std::string("wants ") + wanted + ", has " + type_name(node.type()));
}

Status take(const toml::node& node, const Setting& setting, std::string& into) {
    const auto* value = node.as_string();
    if (value == nullptr) {
        return wrong_type("a string", node);
    }
    TRY(check_value(setting, value->get()));
    into = value->get();
    return {};
}
Status take(const toml::node& node, const Setting&, bool& into) {
    const auto* value = node.as_boolean();
    if (value == nullptr) {
        return wrong_type("a boolean", node);
    }
    into = value->get();
    return {};
}
Status take(const toml::node& node, const Setting& setting, int64_t& into) {
    const auto* value = node.as_integer();
    if (value == nullptr) {
        return wrong_type("an integer", node);
    }
    TRY(check_value(setting, value->get()));
    into = value->get();
    return {};
}
Status take(const toml::node& node, const Setting&, std::vector<std::string>& into) {
    const auto* values = node.as_array();
    if (values == nullptr) {
        return wrong_type("a list of strings", node);
    }
    std::vector<std::string> strings;
    for (const toml::node& element : *values) {
        const auto* value = element.as_string();
        if (value == nullptr) {
            return wrong_type("a list of strings", element);
        }
        strings.push_back(value->get());
    }
    into = std::move(strings);
    return {};
}

const Setting* find_setting(const std::string& key) {
    for (const Setting& setting : setting_table()) {
        if (key == setting.key) {
            return &setting;
        }
    }
    return nullptr;
}

bool is_section(const std::string& name) {
    for (const Setting& setting : setting_table()) {
        if (std::string_view(setting.key).starts_with(name + ".")) {
            return true;
        }
    }
    return false;
}

Status read_table(const toml::table& table, const std::string& prefix, const std::string& name,
                  Settings& settings) {
    for (const auto& [toml_key, node] : table) {
        const std::string key = prefix + std::string(toml_key.str());
        if (const toml::table* section = node.as_table(); section != nullptr && is_section(key)) {
            TRY(read_table(*section, key + ".", name, settings));
            continue;
        }
        const Setting* setting = find_setting(key);
        if (setting == nullptr) {
            return at(name, toml_key.source(), "unknown setting " + key);
        }
        const Status taken = std::visit(
            [&, &node = node](auto member) { return take(node, *setting, settings.*member); },
            setting->member);
        if (!taken.ok()) {
            return at(name, node.source(), key + ": " + taken.error().message());
        }
    }
    return {};
}

Status set_from_text(const Override& override, const Setting& setting, std::string& into) {
    TRY(check_value(setting, override.values.back()));
    into = override.values.back();
    return {};
}
Status set_from_text(const Override& override, const Setting&, bool& into) {
    const std::string& text = override.values.back();
    if (text != "true" && text != "false") {
        return invalid_argument("\"" + text + "\": neither true nor false");
    }
    into = text == "true";
    return {};
}
Status set_from_text(const Override& override, const Setting& setting, int64_t& into) {
    const std::string& text = override.values.back();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
        return invalid_argument("\"" + text + "\": not an integer");
    }
    TRY(check_value(setting, value));
    into = value;
    return {};
}
Status set_from_text(const Override& override, const Setting&, std::vector<std::string>& into) {
    into = override.values;
    return {};
}

}  // namespace

Status parse_config(const std::string& text, const std::string& name, Settings& settings) {
    Settings changed = settings;
    try {
        TRY(read_table(toml::parse(std::string_view(text)), "", name, changed));
    } catch (const toml::parse_error& error) {
        return at(name, error.source(), std::string(error.description()));
    }
    settings = std::move(changed);
    return {};
}

Status apply_override(const Override& override, Settings& settings) {
    for (const Setting& setting : setting_table()) {
        if (flag_of(setting) == override.flag && !override.values.empty()) {
            TRY_STEP(
                override.flag,
                std::visit(
                    [&](auto member) { return set_from_text(override, setting, settings.*member); },
                    setting.member));
            return {};
        }
    }
    return invalid_argument(override.flag + ": no such flag");
}

Status check_settings(const Settings& settings) {
    TRY(RegistryHosts(settings.registry_config_dir, settings.registry_mirrors).check());
    for (const auto& [flag, path] :
         {std::pair<const char*, const std::string&>{"root", settings.root},
          {"state", settings.state}}) {
        // Paths below end up in mounts and in other programs' configurations.
        if (path.empty() || path.front() != '/') {
            return invalid_argument(std::string(flag) + ": \"" + path + "\": not an absolute path");
        }
    }
    return {};
}

Result<Settings> load_settings(const ConfigSource& source) {
    Settings settings;
    const bool there = access(source.path.c_str(), F_OK) == 0;
    if (there || source.required) {
        const std::string text = TRY_HOST("configuration", read_file(source.path, kMaxFile));
        TRY(parse_config(text, source.path, settings));
    }
    for (const Override& override : source.overrides) {
        TRY(apply_override(override, settings));
    }
    TRY(check_settings(settings));
    return settings;
}

std::string write_config(const Settings& settings) {
    std::string text =
        "# moatd's configuration; the values here are the defaults. `moatd config check` reads a "
        "file as "
        "moatd would.\n"
        "# The command line overrides it: cni.conf_dir is --cni-conf-dir. \"reload\": SIGHUP takes "
        "a "
        "change over;\n# \"restart\": only the next start of moatd does. Pods run on through "
        "both.\n";
    std::string section;
    for (const Setting& setting : setting_table()) {
        const std::string key = setting.key;
        const size_t dot = key.find('.');
        const std::string in = dot == std::string::npos ? "" : key.substr(0, dot);
        if (in != section) {
            section = in;
            text += "\n[" + section + "]\n";
        }
        text += std::string("\n# ") + setting.help + ".";
        if (*setting.values != 0) {
            text += std::string(" One of ") + setting.values + ".";
        }
        text += setting.takes == Takes::kReload ? " (reload)\n" : " (restart)\n";
        text += (dot == std::string::npos ? key : key.substr(dot + 1)) + " = " +
                toml_value(settings, setting) + "\n";
    }
    return text;
}

}  // namespace moat::cri
