#include "runtime/cli/image.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

namespace moat::runtime::cli {

int run_image_command(char** argv) {
    char self[PATH_MAX];
    const ssize_t size = readlink("/proc/self/exe", self, sizeof(self));
    std::string program(self, size > 0 ? static_cast<size_t>(size) : 0);
    program = program.substr(0, program.rfind('/') + 1) + "moatd";
    std::string name = "moatd";
    std::vector<char*> arguments = {name.data()};
    for (; *argv != nullptr; ++argv) {
        arguments.push_back(*argv);
    }
    arguments.push_back(nullptr);
    execv(program.c_str(), arguments.data());
    execvp("moatd", arguments.data());
    fprintf(stderr, "moat: image: cannot run %s, nor a moatd of PATH: %s\n", program.c_str(),
            strerror(errno));
    return 1;
}

}  // namespace moat::runtime::cli
