// One attach: a client's streams beside those of a container that runs.

#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>

#include "api.pb.h"
#include "cri/containers/container_manager.h"
#include "cri/streaming/copy.h"
#include "cri/streaming/pipes.h"
#include "cri/streaming/remote_command.h"
#include "runtime/runtime.h"

namespace moat::cri::streaming {

namespace {

using ErrorCode = boost::system::error_code;

class AttachSession final : public RemoteSession,
                            public std::enable_shared_from_this<AttachSession> {
  public:
    AttachSession(boost::asio::io_context& io, ContainerManager& containers, AttachRequest request,
                  RemoteStreams streams, std::function<void()> finished)
        : RemoteSession(io, std::move(streams), finished),
          containers_(containers),
          request_(std::move(request)),
          abandon_(std::move(finished)) {}

    void start() {
        streams_.connection->start(abandon_);
        const Status begun = begin();
        if (!begun.ok()) {
            spdlog::warn("container {}: attach: {}", request_.container_id,
                         begun.error().message());
            end(RemoteStatus::failed("error attaching to container: " + begun.error().message()));
        }
    }

  private:
    Status begin() {
        const ContainerPtr container = TRY(containers_.find(request_.container_id));
        use_ = container->in_use;
        if (container->snapshot().phase != ContainerPhase::kRunning) {
            return wrong_state("container is not running");
        }
        // The container's terminal counts, whatever the client believes.
        const bool tty = container->config->tty();
        stdin_ends_container_ = container->config->stdin_once() && !tty;
        const std::string step = "attach to container " + container->id;
        Pipe in;
        Pipe out;
        Pipe err;
        // A container without stdin: what the client types goes nowhere.
        const bool wants_in = streams_.in != nullptr && container->config->stdin();
        in = TRY_HOST(step, wants_in ? open_pipe() : Result<Pipe>(Pipe()));
        out = TRY_HOST(step, streams_.out ? open_pipe() : Result<Pipe>(Pipe()));
        err = TRY_HOST(step, streams_.err && !tty ? open_pipe() : Result<Pipe>(Pipe()));
        runtime::AttachStdio stdio;
        stdio.stdin_fd = in.read_end.get();
        stdio.stdout_fd = out.write_end.get();
        stdio.stderr_fd = err.write_end.get();
        TRY_HOST(step, container->runtime.attach(container->id, stdio));
        if (streams_.resize != nullptr) {
            read_sizes(
                [container](SizeParser::Size size) {
                    (void)container->runtime.resize(container->id, "", size.rows, size.columns);
                },
                [] {});
        }
        if (streams_.in != nullptr && !wants_in) {
            streams_.in->discard();
        }
        if (wants_in) {
            in_ = make_descriptor(io_, std::move(in.write_end));
            copy_in(streams_.in, in_,
                    [self = shared_from_this()](CopyEnd how) { self->input_ended(how); });
        }
        if (out.read_end) {
            show(std::move(out.read_end), streams_.out);
        }
        if (err.read_end) {
            show(std::move(err.read_end), streams_.err);
        }
        if (showing_ == 0) {
            await_reader();
        }
        return {};
    }

    void show(ScopedFd fd, const StreamPtr& stream) {
        showing_++;
        copy_out(make_descriptor(io_, std::move(fd)), stream, [self = shared_from_this()](CopyEnd) {
            if (--self->showing_ == 0) {
                self->end({});
            }
        });
    }

    /// What the reference does: with StdinOnce the container reads end of file and the client sees
    /// what it still writes, else the client's end of input ends the attach.
    void input_ended(CopyEnd how) {
        if (how == CopyEnd::kClient && !stdin_ends_container_) {
            end({});
            return;
        }
        ErrorCode ignored;
        in_->close(ignored);
        if (showing_ == 0) {
            end({});
        }
    }

    /// Without output to watch, the container's end shows in nobody reading what we write.
    void await_reader() {
        if (in_ != nullptr) {
            in_->async_wait(Descriptor::wait_error,
                            [self = shared_from_this()](const ErrorCode&) { self->end({}); });
        }
    }

    ContainerManager& containers_;
    const AttachRequest request_;
    const std::function<void()> abandon_;
    DescriptorPtr in_;
    std::shared_ptr<char> use_;  ///< of the container, until all of its output is shown
    int showing_ = 0;
    bool stdin_ends_container_ = false;
};

}  // namespace

void run_attach(boost::asio::io_context& io, ContainerManager& containers, AttachRequest request,
                RemoteStreams streams, std::function<void()> finished) {
    std::make_shared<AttachSession>(io, containers, std::move(request), std::move(streams),
                                    std::move(finished))
        ->start();
}

}  // namespace moat::cri::streaming
