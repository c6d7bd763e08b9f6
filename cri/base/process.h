#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

struct ProcessResult {
    int exit_code = 0;  ///< 128 + signal for one that was killed
    std::string out;    ///< stdout, at most 4 MiB
    std::string err;    ///< stderr, at most 64 KiB
};

/// Runs `program` (a path) with exactly this environment, `input` on stdin, in a process group of
/// its own, and waits. One that is not done by `timeout`, or prints more than 4 MiB, is killed with
/// its group: ETIMEDOUT, EFBIG.
Result<ProcessResult> run_process(const std::string& program, const std::vector<std::string>& args,
                                  const std::vector<std::string>& env, const std::string& input,
                                  std::chrono::milliseconds timeout);

}  // namespace moat::cri
