#include "cri/server/convert.h"
#include "cri/server/node.h"
#include "cri/server/runtime_service.h"

namespace moat::cri {

namespace {

template <typename Response>
::grpc::Status answer(Result<std::string> url, Response* response) {
    if (!url.ok()) {
        return to_grpc(url.error());
    }
    response->set_url(std::move(url).value());
    return ::grpc::Status::OK;
}

}  // namespace

::grpc::Status RuntimeService::Exec(::grpc::ServerContext*, const api::ExecRequest* request,
                                    api::ExecResponse* response) {
    return answer(node_.streaming->exec({request->container_id(),
                                         {request->cmd().begin(), request->cmd().end()},
                                         request->tty(),
                                         request->stdin(),
                                         request->stdout(),
                                         request->stderr()}),
                  response);
}

::grpc::Status RuntimeService::Attach(::grpc::ServerContext*, const api::AttachRequest* request,
                                      api::AttachResponse* response) {
    return answer(node_.streaming->attach({request->container_id(), request->tty(),
                                           request->stdin(), request->stdout(), request->stderr()}),
                  response);
}

::grpc::Status RuntimeService::PortForward(::grpc::ServerContext*,
                                           const api::PortForwardRequest* request,
                                           api::PortForwardResponse* response) {
    return answer(node_.streaming->port_forward({request->pod_sandbox_id(),
                                                 {request->port().begin(), request->port().end()}}),
                  response);
}

}  // namespace moat::cri
