#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "cri/base/settings.h"

namespace moat::cri {

/// When a changed value in the file takes effect.
enum class Takes { kRestart, kReload };

/// One setting: its place in the file, in Settings, and on the command line. The table is the one
/// list of them: the TOML reader, the command line, `moatd config` and manifests/moatd.toml follow
/// from it. Whoever adds a setting adds a member to Settings (its initialiser is the default), a
/// row here, and, for one that is taken over by a reload, a line in Node::apply().
struct Setting {
    using Member = std::variant<std::string Settings::*, bool Settings::*, int64_t Settings::*,
                                std::vector<std::string> Settings::*>;
    const char* key;  ///< "section.name", or "name" at the top of the file
    Member member;
    Takes takes;
    const char* help;            ///< one sentence without a full stop
    const char* values = "";     ///< for a string: "a|b|c", or "" for any
    const char* flag = nullptr;  ///< on the command line; the default is --section-name
    int64_t min = std::numeric_limits<int64_t>::min();
    int64_t max = std::numeric_limits<int64_t>::max();
};

std::span<const Setting> setting_table();

/// "--section-name", with dashes for dots and underscores.
std::string flag_of(const Setting& setting);
/// The value as TOML writes it.
std::string toml_value(const Settings& settings, const Setting& setting);
void copy_value(const Settings& from, Settings& to, const Setting& setting);
bool same_value(const Settings& a, const Settings& b, const Setting& setting);

}  // namespace moat::cri
