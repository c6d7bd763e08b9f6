#pragma once

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri::streaming {

struct Pipe {
    ScopedFd read_end;
    ScopedFd write_end;
};
Result<Pipe> open_pipe();

/// A pty of the host whose slave is raw: the guest's kernel has the line discipline.
struct Pty {
    ScopedFd master;
    ScopedFd slave;
};
Result<Pty> open_pty();

}  // namespace moat::cri::streaming
