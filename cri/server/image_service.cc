#include "cri/server/image_service.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "cri/base/base64.h"
#include "cri/images/reference.h"
#include "cri/metrics/metrics.h"
#include "cri/server/convert.h"
#include "cri/server/node.h"
#include "cri/server/stream_items.h"

namespace moat::cri {

namespace {

/// The `auth` of a Docker configuration file: base64 of "user:password".
Result<RegistryAuth> registry_auth(const api::AuthConfig& config) {
    RegistryAuth auth;
    auth.username = config.username();
    auth.password = config.password();
    auth.registry_token = config.registry_token();
    auth.identity_token = config.identity_token();
    auth.server_address = config.server_address();
    if (!config.auth().empty() && auth.username.empty()) {
        const auto plain = base64_decode(config.auth());
        const size_t colon = plain.ok() ? plain->find(':') : std::string::npos;
        if (colon == std::string::npos) {
            return invalid_argument("auth.auth: not base64 of user:password");
        }
        auth.username = plain->substr(0, colon);
        auth.password = plain->substr(colon + 1);
    }
    return auth;
}

/// Whether one of its names is among those that the settings pin.
bool is_pinned(const Settings& settings, const ImageRecord& image) {
    for (const std::string& name : settings.pinned_images) {
        const auto reference = parse_reference(name);
        if (!reference.ok()) {
            continue;
        }
        const bool by_tag = reference->digest.empty();
        const auto& names = by_tag ? image.tags : image.digests;
        const std::string whole =
            by_tag ? reference->tagged() : reference->by_digest(reference->digest);
        if (std::find(names.begin(), names.end(), whole) != names.end()) {
            return true;
        }
    }
    return false;
}

void fill_image(api::Image& out, const Settings& settings, const ImageRecord& image) {
    fill(out, image);
    out.set_pinned(is_pinned(settings, image));
}

}  // namespace

Result<std::vector<api::Image>> ImageService::images(const api::ImageFilter& filter) {
    std::vector<api::Image> found;
    const std::string& name = filter.image().image();
    if (!name.empty()) {
        if (const auto image = TRY(node_.images->find(name))) {
            fill_image(found.emplace_back(), node_.settings, *image);
        }
        return found;
    }
    const auto all = TRY(node_.images->catalogue());
    for (const ImageRecord& image : all->images) {
        fill_image(found.emplace_back(), node_.settings, image);
    }
    return found;
}

::grpc::Status ImageService::ListImages(::grpc::ServerContext*,
                                        const api::ListImagesRequest* request,
                                        api::ListImagesResponse* response) {
    auto found = images(request->filter());
    if (!found.ok()) {
        return to_grpc(found.error());
    }
    for (api::Image& image : *found) {
        *response->add_images() = std::move(image);
    }
    return ::grpc::Status::OK;
}

::grpc::Status ImageService::ImageStatus(::grpc::ServerContext*,
                                         const api::ImageStatusRequest* request,
                                         api::ImageStatusResponse* response) {
    if (request->image().image().empty()) {
        return to_grpc(invalid_argument("image.image: missing"));
    }
    const auto image = node_.images->find(request->image().image());
    if (!image.ok()) {
        return to_grpc(image.error());
    }
    if (!*image) {
        return ::grpc::Status::OK;  // the CRI's word for "not here" is an answer without an image
    }
    fill_image(*response->mutable_image(), node_.settings, **image);
    if (request->verbose()) {
        (*response->mutable_info())["info"] =
            nlohmann::json{{"chainID", (*image)->chain_id},
                           {"imageSpec", nlohmann::json::parse((*image)->config, nullptr, false)}}
                .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }
    return ::grpc::Status::OK;
}

::grpc::Status ImageService::PullImage(::grpc::ServerContext* context,
                                       const api::PullImageRequest* request,
                                       api::PullImageResponse* response) {
    if (request->image().image().empty()) {
        return to_grpc(invalid_argument("image.image: missing"));
    }
    const auto auth = registry_auth(request->auth());
    if (!auth.ok()) {
        return to_grpc(auth.error());
    }
    const auto pull_start = std::chrono::steady_clock::now();
    const auto id = node_.puller->pull(request->image().image(), *auth,
                                       [context] { return context->IsCancelled(); });
    metrics::image_pulled(
        id.ok(),
        std::chrono::duration<double>(std::chrono::steady_clock::now() - pull_start).count());
    if (!id.ok()) {
        return to_grpc(id.error());
    }
    response->set_image_ref(*id);
    return ::grpc::Status::OK;
}

::grpc::Status ImageService::RemoveImage(::grpc::ServerContext*,
                                         const api::RemoveImageRequest* request,
                                         api::RemoveImageResponse*) {
    if (request->image().image().empty()) {
        return to_grpc(invalid_argument("image.image: missing"));
    }
    return to_grpc(node_.images->remove(request->image().image()));
}

::grpc::Status ImageService::ImageFsInfo(::grpc::ServerContext*, const api::ImageFsInfoRequest*,
                                         api::ImageFsInfoResponse* response) {
    const auto usage = node_.images->usage();
    if (!usage.ok()) {
        return to_grpc(usage.error());
    }
    auto* images = response->add_image_filesystems();
    images->set_timestamp(now_ns());
    images->mutable_fs_id()->set_mountpoint(node_.images->directory());
    images->mutable_used_bytes()->set_value(usage->bytes);
    images->mutable_inodes_used()->set_value(usage->inodes);
    auto* containers = response->add_container_filesystems();
    containers->mutable_fs_id()->set_mountpoint(node_.stats->containers_filesystem().mountpoint);
    const auto written = node_.stats->containers_usage();
    if (!written.ok()) {
        return to_grpc(written.error());
    }
    containers->set_timestamp(written->at_ns);
    containers->mutable_used_bytes()->set_value(written->usage.bytes);
    containers->mutable_inodes_used()->set_value(written->usage.inodes);
    return ::grpc::Status::OK;
}

::grpc::Status ImageService::StreamImages(::grpc::ServerContext*,
                                          const api::StreamImagesRequest* request,
                                          ResponseWriter<api::StreamImagesResponse>* writer) {
    auto found = images(request->filter());
    if (!found.ok()) {
        return to_grpc(found.error());
    }
    return stream_items(*writer, std::move(*found),
                        [](auto& response) { return response.mutable_images(); });
}

}  // namespace moat::cri
