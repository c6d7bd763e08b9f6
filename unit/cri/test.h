#pragma once

// doctest has a CHECK too. Ours is used by inline functions of these headers, so they come first
// and keep it; from here on CHECK is doctest's.
#include "kernel/base/check.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/scoped_fd.h"

#undef CHECK
#include <doctest/doctest.h>
