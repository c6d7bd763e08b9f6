#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/base/settings.h"

namespace moat::cri {

inline constexpr char kDefaultConfigFile[] = "/etc/moat/moatd.toml";

/// What the command line said: a flag of the setting table and its values. A flag without a value
/// (of a bool) has the value "true".
struct Override {
    std::string flag;
    std::vector<std::string> values;
};

/// Where a moatd's settings come from; kept to read them again on SIGHUP.
struct ConfigSource {
    std::string path = kDefaultConfigFile;
    bool required = false;  ///< --config named it: then it must be there
    std::vector<Override> overrides;
};

/// Defaults, then the file, then the command line. EINVAL names file, line and key, or the flag.
Result<Settings> load_settings(const ConfigSource& source);

/// The settings of TOML text `text`, over `settings`. `name` is for errors. Keys that the table
/// does not have, values of another type and values out of range are EINVAL.
Status parse_config(const std::string& text, const std::string& name, Settings& settings);
Status apply_override(const Override& override, Settings& settings);
/// What no single value shows: mirrors that are no HOST=URL, relative paths, and the like.
Status check_settings(const Settings& settings);

/// A configuration file with every setting, its meaning, and the value it has in `settings`.
std::string write_config(const Settings& settings);

}  // namespace moat::cri
