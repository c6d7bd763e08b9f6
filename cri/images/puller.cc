#include "cri/images/puller.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <thread>

#include "cri/images/image_config.h"

namespace moat::cri {

namespace {

/// Downloads of one pull at a time.
constexpr size_t kParallelLayers = 3;
constexpr int kMaxIndexDepth = 3;

}  // namespace

Result<std::string> ImagePuller::pull(const std::string& text, const RegistryAuth& auth,
                                      const std::function<bool()>& cancelled) {
    const Reference reference = TRY(parse_reference(text));
    const std::string step = "pull " + text;
    const auto endpoints = TRY_STEP(step, hosts().endpoints(reference.host));
    std::string tried;
    int code = EIO;
    {
        const FileLock hold = TRY_STEP(step, store_.hold());
        for (const RegistryEndpoint& endpoint : endpoints) {
            RegistryClient client(endpoint, reference, auth, cancelled);
            auto id = pull_from(client, reference);
            if (id.ok()) {
                spdlog::info("image {}: pulled as {} from {}", *id, text, endpoint.url);
                return id;
            }
            spdlog::warn("pull {}: from {}: {}", text, endpoint.url, id.error().message());
            tried += (tried.empty() ? "" : "; ") +
                     ("from " + endpoint.url + ": " + id.error().message());
            // One server that knows the repository and not the tag tells more than another that is
            // not reached.
            code = code == ENOENT ? ENOENT : id.error().code();
            // A server that answers with wrong bytes, a full disk or a client that has gone: the
            // next server would change nothing, or hide it.
            if (id.error().code() == EBADMSG || id.error().code() == ENOSPC ||
                id.error().code() == ECANCELED) {
                code = id.error().code();
                break;
            }
        }
    }
    // What was unpacked before the failure is of use to no image.
    if (const Status collected = store_.collect(); !collected.ok()) {
        spdlog::warn("pull {}: clean up: {}", text, collected.error().message());
    }
    return Error(code, step + ": " + tried);
}

Result<std::string> ImagePuller::pull_from(RegistryClient& client, const Reference& reference) {
    FetchedManifest fetched = TRY(client.manifest(reference.target()));
    // What the name stands for is the outermost digest, a list's if it is one.
    const std::string named_digest = fetched.digest;
    auto parsed = TRY(parse_manifest(fetched.text, fetched.media_type));
    for (int depth = 0; std::holds_alternative<Index>(parsed); ++depth) {
        if (depth == kMaxIndexDepth) {
            return invalid_argument("manifest: lists nested too deep");
        }
        const Descriptor chosen = TRY(choose_platform(std::get<Index>(parsed)));
        fetched = TRY(client.manifest(chosen.digest));
        parsed = TRY(parse_manifest(fetched.text, fetched.media_type));
    }
    const Manifest& manifest = std::get<Manifest>(parsed);
    const std::string config_text =
        TRY_STEP("configuration", client.blob(manifest.config, kMaxConfig));
    const ImageConfig config = TRY(parse_image_config(config_text));
    if (config.diff_ids.size() != manifest.layers.size()) {
        return invalid_argument("manifest: " + std::to_string(manifest.layers.size()) +
                                " layers, but the configuration has " +
                                std::to_string(config.diff_ids.size()) + " rootfs.diff_ids");
    }
    if ((!config.os.empty() && config.os != "linux") ||
        (!config.architecture.empty() && config.architecture != host_architecture())) {
        return invalid_argument("the image is for " + config.os + "/" + config.architecture +
                                ", this node is linux/" + host_architecture());
    }
    TRY(ensure_layers(client, manifest.layers, config.diff_ids));
    ImageRecord image;
    image.id = manifest.config.digest;
    image.chain_id = ImageStore::chain_id(config.diff_ids);
    image.config = config_text;
    image.digests = {reference.by_digest(named_digest)};
    if (reference.digest.empty()) {
        image.tags = {reference.tagged()};
    }
    TRY(store_.add_image(image, config.diff_ids));
    return image.id;
}

Status ImagePuller::ensure_layers(RegistryClient& client, const std::vector<Descriptor>& blobs,
                                  const std::vector<std::string>& diff_ids) {
    std::atomic<size_t> next = 0;
    std::mutex mu;
    Status failure;
    const auto work = [&] {
        for (size_t i; (i = next++) < blobs.size();) {
            const Status status = ensure_layer(client, blobs[i], diff_ids[i]);
            if (!status.ok()) {
                next = blobs.size();
                const std::lock_guard lock(mu);
                if (failure.ok()) {
                    failure = status;
                }
            }
        }
    };
    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min(kParallelLayers, blobs.size()); ++i) {
        threads.emplace_back(work);
    }
    work();
    for (std::thread& thread : threads) {
        thread.join();
    }
    return failure;
}

Status ImagePuller::ensure_layer(RegistryClient& client, const Descriptor& blob,
                                 const std::string& diff_id) {
    for (;;) {
        std::shared_ptr<InFlight> mine;
        {
            std::unique_lock lock(mu_);
            if (const auto it = in_flight_.find(diff_id); it != in_flight_.end()) {
                const std::shared_ptr<InFlight> other = it->second;
                settled_.wait(lock, [&] { return other->done; });
                // Somebody else's failure may have been of his server or his client: do it
                // ourselves.
                if (other->status.ok()) {
                    return {};
                }
                continue;
            }
            mine = in_flight_[diff_id] = std::make_shared<InFlight>();
        }
        Status status = fetch_layer(client, blob, diff_id);
        const std::lock_guard lock(mu_);
        mine->done = true;
        mine->status = status;
        in_flight_.erase(diff_id);
        settled_.notify_all();
        return status;
    }
}

Status ImagePuller::fetch_layer(RegistryClient& client, const Descriptor& blob,
                                const std::string& diff_id) {
    if (TRY(store_.has_layer(diff_id))) {
        return {};
    }
    const auto work = TRY(store_.workspace());
    const std::string path = work->path() + "/blob";
    TRY(client.download(blob, path));
    return store_.add_layer(path, "", diff_id);
}

}  // namespace moat::cri
