#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <spdlog/spdlog.h>

int main(int argc, char** argv) {
    // As moatd: a plugin that ends without reading its input must not end us.
    signal(SIGPIPE, SIG_IGN);
    // What moatd would log of the failures that these tests provoke.
    spdlog::set_level(spdlog::level::off);
    return doctest::Context(argc, argv).run();
}
