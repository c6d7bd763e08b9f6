#pragma once

#include "kernel/base/error.h"

namespace moat::runtime {

using moat::Error;
using moat::in_step;

template <typename T = void>
using Result = moat::Result<T, Error>;
using Status = Result<void>;

}  // namespace moat::runtime
