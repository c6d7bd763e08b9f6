#pragma once

#include <string>

#include "cri/base/error.h"

// What clients name things by. These words end up in paths, in CNI_ARGS, in /etc/hosts and in logs,
// so each kind is held to what its users mean by it. EINVAL names the field.

namespace moat::cri {

/// A pod's or a container's name, a namespace, a uid: 1 to 253 bytes, none of them a control
/// character or one of "/", ";" and "="; neither "." nor "..".
Status check_name(const std::string& text, const std::string& field);

/// Absolute, shorter than PATH_MAX, no component longer than NAME_MAX, no "..", no control
/// character.
Status check_absolute_path(const std::string& text, const std::string& field);
/// The same, but below something: neither absolute nor empty.
Status check_relative_path(const std::string& text, const std::string& field);

/// At most 64 bytes (HOST_NAME_MAX) of letters, digits, "-", "." and "_". Empty is allowed.
Status check_hostname(const std::string& text, const std::string& field);

/// At most 64 bytes of it in quotes, for messages: what a client sends may be as long as a message.
std::string in_quotes(const std::string& text);

}  // namespace moat::cri
