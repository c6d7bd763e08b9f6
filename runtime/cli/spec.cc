#include "runtime/spec/spec.h"

#include <errno.h>
#include <fcntl.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

void add_spec(CLI::App& app, Cli& cli) {
    auto bundle = std::make_shared<std::string>(".");
    CLI::App* verb = app.add_subcommand("spec", "write a config.json to begin with");
    verb->add_option("-b,--bundle", *bundle, "directory that gets it");
    verb->final_callback([&cli, bundle] {
        cli.action = [&cli, bundle] {
            const std::string path = *bundle + "/config.json";
            const ScopedFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
            if (!fd) {
                return cli.fail(Error::from_errno(errno, "spec: create " + path));
            }
            return cli.done(write_all(fd.get(), default_spec()));
        };
    });
}

}  // namespace moat::runtime::cli
