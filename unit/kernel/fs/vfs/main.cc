#include "kernel/task/wait_queue.h"

#undef CHECK
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

int main(int argc, char** argv) {
    moat::kernel::WakeScope wakes;  // as around every system call
    doctest::Context context(argc, argv);
    return context.run();
}
