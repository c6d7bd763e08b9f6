#pragma once

#include <stdlib.h>

#include <string>

#include "runtime/util/files.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

namespace moat::runtime {

/// A directory that goes with the object, whatever a test left in it.
struct TempDir {
    std::string path = "/tmp/moat-unit-XXXXXX";
    TempDir() { REQUIRE(mkdtemp(path.data()) != nullptr); }
    ~TempDir() { CHECK(remove_tree(path).ok()); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
};

}  // namespace moat::runtime
