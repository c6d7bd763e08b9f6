#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <spdlog/spdlog.h>

int main(int argc, char** argv) {
    // What moatd would log of the failures that these tests provoke.
    spdlog::set_level(spdlog::level::off);
    return doctest::Context(argc, argv).run();
}
