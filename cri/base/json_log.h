#pragma once

#include <spdlog/formatter.h>

#include <memory>

namespace moat::cri {

/// Log lines as JSON objects: time (RFC 3339), level, msg.
std::unique_ptr<spdlog::formatter> make_json_formatter();

}  // namespace moat::cri
