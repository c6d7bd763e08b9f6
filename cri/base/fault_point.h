#pragma once

#include <string_view>

namespace moat::cri {

/// A named moment at which a test may kill moatd as `kill -9` does: between two steps, before and
/// after a write. Inert unless the environment asks, which is looked at once:
///   MOAT_FAULT_POINTS_SEEN=FILE   each passing appends a line "name"
///   MOAT_FAULT_POINT=name#N       the N-th passing (from 1) of that name is the last thing moatd
///   does
/// Names are "object.moment".
void fault_point(const char* name);

/// The same before and after an SQL statement that writes: "database.before UPDATE pods".
void fault_point_of_statement(const char* moment, std::string_view sql);

}  // namespace moat::cri
