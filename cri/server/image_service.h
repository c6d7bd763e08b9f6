#pragma once

#include <grpcpp/server_context.h>

#include <vector>

#include "api.pb.h"
#include "cri/server/errors.h"
#include "cri/server/response_writer.h"

namespace moat::cri {

namespace api = ::runtime::v1;
struct Node;

/// runtime.v1.ImageService.
class ImageService {
  public:
    explicit ImageService(Node& node) : node_(node) {}

#define MOAT_RPC(Name)                                                                     \
    ::grpc::Status Name(::grpc::ServerContext* context, const api::Name##Request* request, \
                        api::Name##Response* response)
    MOAT_RPC(ListImages);
    MOAT_RPC(ImageStatus);
    MOAT_RPC(PullImage);
    MOAT_RPC(RemoveImage);
    MOAT_RPC(ImageFsInfo);
#undef MOAT_RPC
    ::grpc::Status StreamImages(::grpc::ServerContext* context,
                                const api::StreamImagesRequest* request,
                                ResponseWriter<api::StreamImagesResponse>* writer);

  private:
    Result<std::vector<api::Image>> images(const api::ImageFilter& filter);

    Node& node_;
};

}  // namespace moat::cri
