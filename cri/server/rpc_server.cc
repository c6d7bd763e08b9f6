#include "cri/server/rpc_server.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <exception>
#include <optional>
#include <utility>

#include "cri/server/rpc_observer.h"

namespace moat::cri {

namespace {

/// A longer request is taken apart by a thread of its own.
constexpr size_t kShortRequest = 64 << 10;

}  // namespace

/// One call. The reading thread owns it until it is handed to a worker; it goes when gRPC has told
/// both that its status is sent and that it is over.
class RpcServer::Call final : public MessageSink {
  public:
    enum class Event { kArrived, kRequest, kAnswer, kSent, kFinished, kOver };
    struct Tag {
        Call* call;
        Event event;
    };

    ::grpc::GenericServerContext context;
    const Method* method = nullptr;
    ::grpc::ByteBuffer request;

    void expect(::grpc::AsyncGenericService& service, ::grpc::ServerCompletionQueue& queue) {
        context.AsyncNotifyWhenDone(&over_);
        service.RequestCall(&context, &stream_, &queue, &queue, &arrived_);
    }
    void read() { stream_.Read(&request, &request_); }

    void carry_out() {
        const Method& m = *method;
        const std::unique_ptr<Message> message(m.request->New());
        const std::unique_ptr<Message> response(m.response != nullptr ? m.response->New()
                                                                      : nullptr);
        {
            RpcObserver observer(m.name);
            status_ = ::grpc::GenericDeserialize<::grpc::ProtoBufferReader, Message>(&request,
                                                                                     message.get());
            if (status_.ok()) {
                observer.received(*message);
                try {
                    status_ = m.handler(context, *message, response.get(), *this);
                } catch (const std::exception& e) {
                    // No memory, no thread: this call's affair and nobody else's.
                    status_ = {::grpc::StatusCode::UNKNOWN, e.what()};
                }
            }
            observer.finish(status_);
        }
        if (status_.ok() && response != nullptr) {
            status_ = pack(*response, response_);
            has_response_ = status_.ok();
        }
    }
    void refuse(::grpc::Status status) {
        status_ = std::move(status);
        answer();
    }
    /// With what carry_out() has found. On the reading thread: the client's next call often comes
    /// before another thread is through with gRPC's end of the answer, and is then handed back and
    /// forth between three threads.
    void answer() {
        if (has_response_) {
            stream_.WriteAndFinish(response_, ::grpc::WriteOptions(), status_, &finished_);
        } else {
            stream_.Finish(status_, &finished_);
        }
    }
    /// Has the reading thread answer. After it the call may be gone.
    void answer_from(::grpc::ServerCompletionQueue& queue) {
        due_.Set(&queue, gpr_time_0(GPR_CLOCK_MONOTONIC), &answer_);
    }

    bool send_headers() override {
        stream_.SendInitialMetadata(&sent_);
        return wait_until_sent();
    }
    bool send(const Message& message) override {
        ::grpc::ByteBuffer bytes;
        if (!pack(message, bytes).ok()) {
            return false;
        }
        stream_.Write(bytes, &sent_);
        return wait_until_sent();
    }
    void sent(bool ok) {
        const std::lock_guard lock(mu_);
        outcome_ = ok;
        changed_.notify_all();
    }

    /// kFinished or kOver has come; true: that was the second.
    bool one_end_less() { return --ends_ == 0; }

  private:
    static ::grpc::Status pack(const Message& message, ::grpc::ByteBuffer& into) {
        bool own = false;
        return ::grpc::GenericSerialize<::grpc::ProtoBufferWriter, Message>(message, &into, &own);
    }
    bool wait_until_sent() {
        std::unique_lock lock(mu_);
        changed_.wait(lock, [this] { return outcome_.has_value(); });
        return *std::exchange(outcome_, std::nullopt);
    }

    ::grpc::GenericServerAsyncReaderWriter stream_{&context};
    Tag arrived_{this, Event::kArrived};
    Tag request_{this, Event::kRequest};
    Tag answer_{this, Event::kAnswer};
    Tag sent_{this, Event::kSent};
    Tag finished_{this, Event::kFinished};
    Tag over_{this, Event::kOver};
    ::grpc::Alarm due_;
    ::grpc::Status status_;
    ::grpc::ByteBuffer response_;
    bool has_response_ = false;
    int ends_ = 2;  ///< of the reading thread
    std::mutex mu_;
    std::condition_variable changed_;
    std::optional<bool> outcome_;  ///< of the message that is being sent; guarded by mu_
};

RpcServer::~RpcServer() {
    if (server_ != nullptr) {
        shut_down(gpr_now(GPR_CLOCK_MONOTONIC));
    }
}

void RpcServer::insert(const std::string& path, Waits waits, const Message& request,
                       const Message* response, Handler handler) {
    methods_[path] = {path.substr(path.rfind('/') + 1), waits, &request, response,
                      std::move(handler)};
}

::grpc::Server* RpcServer::open(::grpc::ServerBuilder& builder) {
    builder.RegisterAsyncGenericService(&service_);
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
        return nullptr;
    }
    ask_for_next();
    reader_ = std::thread([this] { read_all(); });
    return server_.get();
}

void RpcServer::shut_down(gpr_timespec deadline) {
    server_->Shutdown(deadline);
    {
        std::unique_lock lock(mu_);
        all_ended_.wait(lock, [this] { return calls_ == 0; });
    }
    queue_->Shutdown();
    reader_.join();
    server_.reset();
}

void RpcServer::ask_for_next() { (new Call)->expect(service_, *queue_); }

void RpcServer::read_all() {
    void* told = nullptr;
    bool ok = false;
    while (queue_->Next(&told, &ok)) {
        const auto& tag = *static_cast<Call::Tag*>(told);
        Call& call = *tag.call;
        switch (tag.event) {
            case Call::Event::kArrived:
                if (!ok) {
                    delete &call;  // the server ends
                    break;
                }
                {
                    const std::lock_guard lock(mu_);
                    ++calls_;
                }
                ask_for_next();
                if (const auto it = methods_.find(call.context.method()); it != methods_.end()) {
                    call.method = &it->second;
                    call.read();
                } else {
                    call.refuse({::grpc::StatusCode::UNIMPLEMENTED,
                                 "unknown method " + call.context.method().substr(0, 200)});
                }
                break;
            case Call::Event::kRequest:
                if (ok) {
                    dispatch(call);
                } else {
                    call.refuse({::grpc::StatusCode::INTERNAL, "the request has no message"});
                }
                break;
            case Call::Event::kAnswer:
                call.answer();
                break;
            case Call::Event::kSent:
                call.sent(ok);
                break;
            case Call::Event::kFinished:
            case Call::Event::kOver:
                if (call.one_end_less()) {
                    ended(&call);
                }
                break;
        }
    }
}

void RpcServer::dispatch(Call& call) {
    if (call.method->waits == Waits::kNever && call.request.Length() <= kShortRequest) {
        call.carry_out();
        call.answer();
    } else if (!workers_.run([this, &call] {
                   call.carry_out();
                   call.answer_from(*queue_);
               })) {
        call.refuse({::grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls in progress"});
    }
}

void RpcServer::ended(Call* call) {
    delete call;
    const std::lock_guard lock(mu_);
    if (--calls_ == 0) {
        all_ended_.notify_all();
    }
}

}  // namespace moat::cri
