#pragma once

#include <string>

#include "cri/base/error.h"

namespace moat::cri {

std::string base64_encode(const std::string& plain);
/// Standard alphabet with padding; EINVAL for anything else.
Result<std::string> base64_decode(const std::string& text);

}  // namespace moat::cri
