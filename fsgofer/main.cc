// moat-gofer --socket-fd N --plan-fd M: see fsgofer/protocol/plan.h.

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "fsgofer/server/confine.h"
#include "fsgofer/server/plan.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

namespace {

struct Arguments {
    int socket = -1;
    int plan = -1;
};

SetupResult<Arguments> parse_arguments(int argc, char** argv) {
    Arguments arguments;
    for (int i = 1; i < argc; i += 2) {
        int* value = strcmp(argv[i], "--socket-fd") == 0 ? &arguments.socket
                     : strcmp(argv[i], "--plan-fd") == 0 ? &arguments.plan
                                                         : nullptr;
        if (value == nullptr || i + 1 == argc) {
            return SetupError{EINVAL, std::string("unknown or incomplete argument: ") + argv[i]};
        }
        char* end = nullptr;
        const long number = strtol(argv[i + 1], &end, 10);
        if (*argv[i + 1] == '\0' || *end != '\0' || number <= STDERR_FILENO || number > 1 << 20) {
            return SetupError{EINVAL, std::string("not a descriptor: ") + argv[i + 1]};
        }
        *value = static_cast<int>(number);
    }
    if (arguments.socket < 0 || arguments.plan < 0 || arguments.socket == arguments.plan) {
        return SetupError{EINVAL, "--socket-fd and --plan-fd are needed"};
    }
    return arguments;
}

/// Whatever else the parent left open goes; stdin and stdout become /dev/null, so that nobody who
/// waits for the end of a pipe waits for us. stderr stays for last words.
SetupResult<> tidy_descriptors(const Arguments& arguments) {
    ScopedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null.valid()) {
        return SetupError::from_errno(errno, "open /dev/null");
    }
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(null.get(), STDOUT_FILENO);
    if (null.get() <= STDERR_FILENO) {
        (void)null.release();  // it has filled a gap there
    }
    null.reset();
    unsigned kept[] = {static_cast<unsigned>(arguments.socket),
                       static_cast<unsigned>(arguments.plan)};
    std::sort(std::begin(kept), std::end(kept));
    unsigned first = STDERR_FILENO + 1;
    for (const unsigned fd : kept) {
        if (fd > first) {
            ::close_range(first, fd - 1, 0);
        }
        first = std::max(first, fd + 1);
    }
    ::close_range(first, ~0u, 0);
    return {};
}

SetupResult<> confine(Server& server, ConfinedRoot& root, const GoferPlan& plan) {
    root = TRY(enter_root(plan));
    for (size_t i = 0; i < root.mounts.size(); i++) {
        const auto added = server.add_mount(root.mounts[i]);
        if (!added.ok()) {
            return SetupError::from_errno(added.error().value(), "serve " + plan.mounts[i].source);
        }
    }
    TRY(drop_privileges());
    return install_filter();
}

/// Tells the person (stderr) and the sentry (the answer to its kHello) why there will be no gofer.
int give_up(const SetupError& error, const std::string& id, int socket) {
    const std::string text = "gofer" + (id.empty() ? "" : " " + id) + ": " + error.message;
    fprintf(stderr, "moat-%s\n", text.c_str());
    if (socket >= 0) {
        char buffer[kMaxMessage];
        Writer out(buffer);
        if (out.put_bytes(std::string_view(text).substr(0, out.room()))) {
            Header header;
            header.op = Op::kHello;
            header.error = error.code;
            out.set_header(header);
            (void)send_packet(socket, buffer, out.size()).ok();
        }
    }
    return 1;
}

int run(int argc, char** argv) {
    const auto arguments = parse_arguments(argc, argv);
    if (!arguments.ok()) {
        return give_up(arguments.error(), "", -1);
    }
    ScopedFd socket(arguments->socket);
    const auto tidy = tidy_descriptors(*arguments);
    if (!tidy.ok()) {
        return give_up(tidy.error(), "", socket.get());
    }
    // Modes are the sentry's to decide.
    ::umask(0);
    ScopedFd plan_fd(arguments->plan);
    const auto plan = read_plan(plan_fd.get());
    if (!plan.ok()) {
        return give_up(plan.error(), "", socket.get());
    }
    plan_fd.reset();

    Server server(claim_descriptors());
    ConfinedRoot root;  // outlives the serving
    const auto confined = confine(server, root, *plan);
    if (!confined.ok()) {
        return give_up(confined.error(), plan->id, socket.get());
    }
    const auto served = server.serve(std::move(socket));
    return served.ok() ? 0 : 1;
}

}  // namespace

}  // namespace moat::gofer

int main(int argc, char** argv) { return moat::gofer::run(argc, argv); }
