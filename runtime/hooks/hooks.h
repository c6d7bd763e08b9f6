#pragma once

#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/spec/spec.h"

namespace moat::runtime {

/// Runs OCI hooks one after the other, each with `state_json` on its stdin, and kills one that
/// takes longer than its timeout. The first that fails ends it; the error carries the hook's
/// stderr.
Status run_hooks(const std::vector<SpecHook>& hooks, const std::string& kind,
                 const std::string& state_json);

}  // namespace moat::runtime
