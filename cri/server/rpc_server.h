#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "cri/server/response_writer.h"
#include "cri/server/worker_pool.h"

namespace moat::cri {

/// Takes calls off the connections and has methods carry them out.
///
/// One thread does all the reading and all the answering. gRPC's own synchronous server has two
/// take turns, and each event of a call wakes the other one: ten futex calls a call, on a busy
/// machine as many waits for a CPU. Here a method that never waits is carried out by that thread,
/// between the request and the answer; any other gets a thread of its own. A call whose request has
/// not come costs no thread.
class RpcServer {
  public:
    /// Of a method. kNever: it waits for no disk, no lock that is held across such a wait and no
    /// other process, and takes less than a few milliseconds; nobody else is served meanwhile.
    enum class Waits { kNever, kMay };

    /// Each call in progress that may wait has a thread; those beyond `most_threads` are refused
    /// with RESOURCE_EXHAUSTED.
    explicit RpcServer(size_t most_threads) : workers_(most_threads) {}
    ~RpcServer();

    /// A method with one answer. `path`: "/runtime.v1.RuntimeService/Version". All before open().
    /// `service` must outlive the server.
    template <typename Service, typename Class, typename Request, typename Response>
    void add(const std::string& path, Waits waits, Service& service,
             ::grpc::Status (Class::*method)(::grpc::ServerContext*, const Request*, Response*)) {
        insert(path, waits, Request::default_instance(), &Response::default_instance(),
               [&service, method](::grpc::ServerContext& context, const Message& request,
                                  Message* response, MessageSink&) {
                   return (service.*method)(&context, static_cast<const Request*>(&request),
                                            static_cast<Response*>(response));
               });
    }
    /// A method that streams its answer.
    template <typename Service, typename Class, typename Request, typename Response>
    void add(const std::string& path, Service& service,
             ::grpc::Status (Class::*method)(::grpc::ServerContext*, const Request*,
                                             ResponseWriter<Response>*)) {
        insert(path, Waits::kMay, Request::default_instance(), nullptr,
               [&service, method](::grpc::ServerContext& context, const Message& request, Message*,
                                  MessageSink& sink) {
                   ResponseWriter<Response> writer(sink);
                   return (service.*method)(&context, static_cast<const Request*>(&request),
                                            &writer);
               });
    }

    /// Makes `builder`'s server and begins to serve it; null: it cannot be made.
    ::grpc::Server* open(::grpc::ServerBuilder& builder);
    /// No new calls; those in progress get until `deadline`, then their clients are told that they
    /// were cancelled. Returns when all methods have.
    void shut_down(gpr_timespec deadline);

  private:
    using Message = google::protobuf::Message;
    using Handler = std::function<::grpc::Status(::grpc::ServerContext&, const Message&, Message*,
                                                 MessageSink&)>;
    struct Method {
        std::string name;
        Waits waits;
        const Message* request;
        const Message* response;  ///< null: it streams
        Handler handler;
    };
    class Call;

    void insert(const std::string& path, Waits waits, const Message& request,
                const Message* response, Handler handler);
    void read_all();
    void ask_for_next();
    void dispatch(Call& call);
    void ended(Call* call);

    ::grpc::AsyncGenericService service_;
    std::map<std::string, Method, std::less<>> methods_;
    std::unique_ptr<::grpc::ServerCompletionQueue> queue_;
    std::unique_ptr<::grpc::Server> server_;
    std::thread reader_;
    std::mutex mu_;
    std::condition_variable all_ended_;
    size_t calls_ = 0;  ///< that have arrived and not ended; guarded by mu_
    WorkerPool workers_;
};

}  // namespace moat::cri
