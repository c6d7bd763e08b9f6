// One exec: a process in a container on a client's streams.

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <thread>

#include "cri/containers/container_manager.h"
#include "cri/streaming/copy.h"
#include "cri/streaming/pipes.h"
#include "cri/streaming/remote_command.h"
#include "runtime/runtime.h"

namespace moat::cri::streaming {

namespace {

using ErrorCode = boost::system::error_code;

/// How long a terminal's first size is waited for, so that the process finds it when it starts.
/// Clients send it behind their last stream; one that has none to send loses this much.
constexpr std::chrono::milliseconds kFirstSize{100};

/// What the thread that waits for the process's end leaves behind. It may outlive the session.
struct Wait {
    ScopedFd ended{eventfd(0, EFD_CLOEXEC)};  ///< readable once `exit` is set
    runtime::Result<control::ExitStatus> exit = Error(ECANCELED, "nobody has waited");
};

class ExecSession final : public RemoteSession, public std::enable_shared_from_this<ExecSession> {
  public:
    ExecSession(boost::asio::io_context& io, ContainerManager& containers, ExecRequest request,
                RemoteStreams streams, std::function<void()> finished)
        : RemoteSession(io, std::move(streams), finished),
          containers_(containers),
          request_(std::move(request)),
          abandon_(std::move(finished)),
          first_size_(io) {}

    void start() {
        streams_.connection->start([self = shared_from_this()] { self->client_gone(); });
        if (streams_.resize == nullptr) {
            run();
            return;
        }
        first_size_.expires_after(kFirstSize);
        first_size_.async_wait([self = shared_from_this()](const ErrorCode&) { self->run(); });
        read_sizes([self = shared_from_this()](SizeParser::Size size) { self->resize(size); },
                   [self = shared_from_this()] { self->first_size_.cancel(); });
    }

  private:
    void run() {
        if (std::exchange(started_, true) || ended() || gone_) {
            return;
        }
        const Status begun = begin();
        if (!begun.ok()) {
            spdlog::warn("container {}: exec: {}", request_.container_id, begun.error().message());
            end(RemoteStatus::failed("error executing command in container: " +
                                     begun.error().message()));
        }
    }

    Status begin() {
        const ContainerPtr container = TRY(containers_.find(request_.container_id));
        const std::shared_ptr<char> use = container->in_use;
        if (container->snapshot().phase != ContainerPhase::kRunning) {
            return wrong_state("failed to exec in container: it is not running");
        }
        const std::string step = "failed to exec in container";
        runtime::ExecConfig config;
        config.args = request_.command;
        config.terminal = request_.tty;
        config.rows = size_.rows;
        config.columns = size_.columns;
        Pty pty;
        Pipe in;
        Pipe out;
        Pipe err;
        if (request_.tty) {
            pty = TRY_HOST(step, open_pty());
            config.stdio.console_fd = pty.slave.get();
        } else {
            in = TRY_HOST(step, streams_.in ? open_pipe() : Result<Pipe>(Pipe()));
            out = TRY_HOST(step, streams_.out ? open_pipe() : Result<Pipe>(Pipe()));
            err = TRY_HOST(step, streams_.err ? open_pipe() : Result<Pipe>(Pipe()));
            config.stdio.stdin_fd = in.read_end.get();
            config.stdio.stdout_fd = out.write_end.get();
            config.stdio.stderr_fd = err.write_end.get();
        }
        const auto wait = std::make_shared<Wait>();
        ScopedFd ended(fcntl(wait->ended.get(), F_DUPFD_CLOEXEC, 0));
        if (!wait->ended || !ended) {
            return host_error(Error::from_errno(errno, "eventfd"), step);
        }
        exec_id_ = TRY_HOST(step, container->runtime.exec(container->id, config));
        container_ = container;
        std::thread([wait, container, exec_id = exec_id_, use] {
            wait->exit = container->runtime.wait_exec(container->id, exec_id);
            eventfd_write(wait->ended.get(), 1);
        }).detach();
        await_end(wait, std::move(ended));
        if (request_.tty) {
            // Two descriptors of one master: each direction closes its own.
            ScopedFd second(fcntl(pty.master.get(), F_DUPFD_CLOEXEC, 0));
            if (streams_.in != nullptr && second) {
                feed(std::move(second));
            }
            show(std::move(pty.master), streams_.out);
            return {};
        }
        if (streams_.in != nullptr) {
            feed(std::move(in.write_end));
        }
        if (streams_.out != nullptr) {
            show(std::move(out.read_end), streams_.out);
        }
        if (streams_.err != nullptr) {
            show(std::move(err.read_end), streams_.err);
        }
        return {};
    }

    void feed(ScopedFd fd) {
        in_ = make_descriptor(io_, std::move(fd));
        copy_in(streams_.in, in_, [self = shared_from_this()](CopyEnd) {
            // The process reads end of file. At a terminal that is its user's to type.
            if (!self->request_.tty) {
                self->close_input();
            }
        });
    }

    void show(ScopedFd fd, const StreamPtr& stream) {
        const DescriptorPtr out = make_descriptor(io_, std::move(fd));
        outputs_.push_back(out);
        if (stream == nullptr) {
            // A terminal whose output nobody wants: it must not fill up.
            drain(out);
            return;
        }
        showing_++;
        copy_out(out, stream, [self = shared_from_this(), stream](CopyEnd how) {
            self->showing_--;
            if (how == CopyEnd::kDescriptor) {
                stream->finish();
            }
            self->maybe_end();
        });
    }

    void drain(const DescriptorPtr& out) {
        out->async_read_some(boost::asio::buffer(dropped_),
                             [self = shared_from_this(), out](const ErrorCode& error, size_t) {
                                 if (!error) {
                                     self->drain(out);
                                 }
                             });
    }

    void await_end(const std::shared_ptr<Wait>& wait, ScopedFd ended) {
        const DescriptorPtr told = make_descriptor(io_, std::move(ended));
        told->async_wait(Descriptor::wait_read,
                         [self = shared_from_this(), wait, told](const ErrorCode& error) {
                             if (error) {
                                 return;
                             }
                             self->exited_ = true;
                             self->exit_ = wait->exit;
                             self->maybe_end();
                         });
    }

    /// All that was written has been shown. As with the reference, that includes what children
    /// write that the process has left behind with its streams.
    void maybe_end() {
        if (!exited_) {
            return;
        }
        if (gone_) {
            abandon_();
            return;
        }
        // A sentry that died takes its ends of the pipes with it, so they end then too.
        if (showing_ > 0) {
            return;
        }
        if (!exit_.ok()) {
            end(RemoteStatus::failed("error executing command in container: " +
                                     exit_.error().message()));
            return;
        }
        end(RemoteStatus::exited(exit_->shell_code(), request_.command));
    }

    /// The process lives on, as with the reference: its input has ended, and who fills its output
    /// blocks. It ends with its container at the latest.
    void client_gone() {
        gone_ = true;
        if (!started_ || exec_id_.empty() || exited_) {
            abandon_();
            return;
        }
        spdlog::info("container {}: {}: the client has gone before its process", container_->id,
                     exec_id_);
        if (!request_.tty) {
            close_input();
        }
    }

    void close_input() {
        if (in_ != nullptr) {
            ErrorCode ignored;
            in_->close(ignored);
        }
    }

    void resize(SizeParser::Size size) {
        if (!started_) {
            size_ = size;
            first_size_.cancel();
        } else if (!exec_id_.empty() && !exited_ && !gone_) {
            const Status resized =
                container_->runtime.resize(container_->id, exec_id_, size.rows, size.columns);
            if (!resized.ok()) {
                spdlog::debug("container {}: {}: {}", container_->id, exec_id_,
                              resized.error().message());
            }
        }
    }

    ContainerManager& containers_;
    const ExecRequest request_;
    const std::function<void()> abandon_;
    boost::asio::steady_timer first_size_;
    SizeParser::Size size_;
    ContainerPtr container_;  ///< once its process has started
    std::string exec_id_;
    DescriptorPtr in_;
    std::vector<DescriptorPtr> outputs_;
    char dropped_[4096];
    int showing_ = 0;
    bool started_ = false;
    bool exited_ = false;
    bool gone_ = false;
    runtime::Result<control::ExitStatus> exit_ = Error(ECANCELED, "it has not ended");
};

}  // namespace

void run_exec(boost::asio::io_context& io, ContainerManager& containers, ExecRequest request,
              RemoteStreams streams, std::function<void()> finished) {
    std::make_shared<ExecSession>(io, containers, std::move(request), std::move(streams),
                                  std::move(finished))
        ->start();
}

}  // namespace moat::cri::streaming
