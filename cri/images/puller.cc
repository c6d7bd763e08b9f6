#include "cri/images/puller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "cri/images/image_config.h"

namespace moat::cri {

namespace {

/// Downloads of one pull at a time.
constexpr size_t kParallelLayers = 3;
constexpr int kMaxIndexDepth = 3;

bool ends_the_pull(int code) { return code == ECANCELED || code == ENOSPC || code == EDQUOT; }

/// Which of the servers' errors the client is told: wrong bytes are worth more than a server that
/// knows the repository and not the tag, and that more than one that is not reached.
int weight(int code) {
    return ends_the_pull(code) ? 4
           : code == EBADMSG   ? 3
           : code == ENOENT    ? 2
           : code == EACCES    ? 1
                               : 0;
}

}  // namespace

ImagePuller::ImagePuller(ImageStore& store, RegistryHosts hosts, PullLimits limits)
    : store_(store),
      limits_(limits),
      partial_(store.partial_directory(), limits.partial_bytes),
      hosts_(std::move(hosts)) {}

/// Puts a question to one server after the other, until one answers. What they are asked for has a
/// digest (or is what the name stands for), so it does not matter which of them does.
template <typename T>
Result<T> ImagePuller::ask(Job& job, const std::function<Result<T>(RegistryClient&)>& question) {
    std::string tried;
    int code = EIO;
    for (const auto& server : job.servers) {
        if (!server->usable) {
            continue;
        }
        auto answer = question(*server);
        if (answer.ok()) {
            return answer;
        }
        const std::string& url = server->endpoint().url;
        const Error& error = answer.error();
        tried += (tried.empty() ? "from " : "; from ") + url + ": " + error.message();
        code = weight(error.code()) >= weight(code) ? error.code() : code;
        if (ends_the_pull(error.code())) {
            break;
        }
        spdlog::warn("pull {}: from {}: {}", job.context.name, url, error.message());
        if (error.code() == ECONNREFUSED || error.code() == EACCES) {
            server->usable = server->endpoint().last;
        }
    }
    return Error(code, tried.empty() ? "no server left to ask" : tried);
}

Result<std::string> ImagePuller::pull(const std::string& text, const RegistryAuth& auth,
                                      const std::function<bool()>& cancelled) {
    const Reference reference = TRY(parse_reference(text));
    const std::string step = "pull " + text;
    const auto endpoints = TRY_STEP(step, hosts().endpoints(reference.host));
    const auto start = std::chrono::steady_clock::now();
    ++metrics_.running;
    Result<std::string> id = Error(EIO, "not begun");
    {
        const FileLock hold = TRY_STEP(step, store_.hold());
        Job job(text, limits_, cancelled, metrics_);
        for (const RegistryEndpoint& endpoint : endpoints) {
            job.servers.push_back(
                std::make_unique<RegistryClient>(endpoint, reference, auth, job.context));
        }
        id = run(job, reference);
    }
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    --metrics_.running;
    if (id.ok()) {
        ++metrics_.succeeded;
        metrics_.observe(took);
        spdlog::info("image {}: pulled as {} in {} ms", *id, text, took.count());
    } else {
        ++(id.error().code() == ECANCELED ? metrics_.cancelled : metrics_.failed);
    }
    partial_.trim();
    // What was unpacked before a failure is of use to no image; and a collection that was due
    // meanwhile did not happen.
    if (const Status collected = store_.collect_if_due(!id.ok()); !collected.ok()) {
        spdlog::warn("pull {}: clean up: {}", text, collected.error().message());
    }
    return id.ok() ? id : Result<std::string>(id.error().within(step));
}

Result<std::string> ImagePuller::run(Job& job, const Reference& reference) {
    const auto fetch = [&](const std::string& target) {
        return ask<FetchedManifest>(job, [&](RegistryClient& server) -> Result<FetchedManifest> {
            if (!is_digest(target) && !server.endpoint().may_resolve) {
                return Error(ENOENT, "it is not asked what a tag stands for (capabilities)");
            }
            return server.manifest(target);
        });
    };
    FetchedManifest fetched = TRY(fetch(reference.target()));
    // What the name stands for is the outermost digest, a list's if it is one.
    const std::string named_digest = fetched.digest;
    auto parsed = TRY(parse_manifest(fetched.text, fetched.media_type));
    for (int depth = 0; std::holds_alternative<Index>(parsed); ++depth) {
        if (depth == kMaxIndexDepth) {
            return invalid_argument("manifest: lists nested too deep");
        }
        const Descriptor chosen = TRY(choose_platform(std::get<Index>(parsed)));
        fetched = TRY(fetch(chosen.digest));
        parsed = TRY(parse_manifest(fetched.text, fetched.media_type));
    }
    const Manifest& manifest = std::get<Manifest>(parsed);
    const std::string config_text =
        TRY_STEP("configuration", ask<std::string>(job, [&](RegistryClient& server) {
                     return server.blob(manifest.config, kMaxConfig);
                 }));
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
    TRY(ensure_layers(job, manifest.layers, config.diff_ids));
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

Status ImagePuller::ensure_layers(Job& job, const std::vector<Descriptor>& blobs,
                                  const std::vector<std::string>& diff_ids) {
    uint64_t bytes = 0;
    for (const Descriptor& blob : blobs) {
        bytes += static_cast<uint64_t>(blob.size);
    }
    job.context.progress.expect(blobs.size(), bytes);
    std::atomic<size_t> next = 0;
    std::mutex mu;
    Status failure;
    const auto work = [&] {
        for (size_t i; (i = next++) < blobs.size();) {
            const Status status = ensure_layer(job, blobs[i], diff_ids[i]);
            if (!status.ok()) {
                next = blobs.size();
                const std::lock_guard lock(mu);
                if (failure.ok()) {
                    failure = status.error().within("layer " + std::to_string(i + 1) + " of " +
                                                    std::to_string(blobs.size()));
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

Status ImagePuller::ensure_layer(Job& job, const Descriptor& blob, const std::string& diff_id) {
    const auto done = [&](bool downloaded) {
        ++(downloaded ? metrics_.layers_downloaded : metrics_.layers_shared);
        if (!downloaded) {
            job.context.progress.skipped(static_cast<uint64_t>(blob.size));
        }
        job.context.progress.layer_done();
        job.context.progress.tell();
        return Status();
    };
    for (;;) {
        std::shared_ptr<InFlight> mine;
        {
            std::unique_lock lock(mu_);
            if (const auto it = in_flight_.find(diff_id); it != in_flight_.end()) {
                const std::shared_ptr<InFlight> other = it->second;
                while (!settled_.wait_for(lock, std::chrono::milliseconds(200),
                                          [&] { return other->done; })) {
                    if (job.context.cancelled && job.context.cancelled()) {
                        return Error(ECANCELED, "the client has gone");
                    }
                }
                // Somebody else's failure may have been of his server or his client: do it
                // ourselves.
                if (other->status.ok()) {
                    return done(false);
                }
                continue;
            }
            mine = in_flight_[diff_id] = std::make_shared<InFlight>();
        }
        const auto there = store_.has_layer(diff_id);
        Status status = !there.ok() ? Status(there.error())
                        : *there    ? Status()
                                    : fetch_layer(job, blob, diff_id);
        {
            const std::lock_guard lock(mu_);
            mine->done = true;
            mine->status = status;
            in_flight_.erase(diff_id);
            settled_.notify_all();
        }
        return status.ok() ? done(!*there) : status;
    }
}

Status ImagePuller::fetch_layer(Job& job, const Descriptor& blob, const std::string& diff_id) {
    PartialBlob file = TRY(partial_.open(blob.digest));
    Status status = download(job, blob, file);
    if (status.ok()) {
        status = store_.add_layer(file.path(), "", diff_id,
                                  {.bytes = limits_.layer_bytes,
                                   .members = limits_.layer_members,
                                   .cancelled = job.context.cancelled,
                                   .unpacked = &metrics_.bytes_unpacked});
        if (status.ok() || status.error().code() != ECANCELED) {
            file.discard();
        }
    } else if (const int code = status.error().code(); code == EBADMSG || code == ENOSPC) {
        file.discard();  // of no use to anybody, or in everybody's way
    }
    return status;
}

Status ImagePuller::download(Job& job, const Descriptor& blob, PartialBlob& file) {
    TRY(file.resume(blob.size));
    if (file.resumed()) {
        const auto bytes = static_cast<uint64_t>(file.size());
        spdlog::info("pull {}: blob {}: goes on at byte {} of {}", job.context.name, blob.digest,
                     bytes, blob.size);
        metrics_.bytes_resumed += bytes;
        job.context.progress.skipped(bytes);
    }
    TRY(ask<bool>(job, [&](RegistryClient& server) -> Result<bool> {
        TRY(download_from(server, blob, file));
        return true;
    }));
    return {};
}

Status ImagePuller::download_from(RegistryClient& server, const Descriptor& blob,
                                  PartialBlob& file) {
    for (;;) {
        TRY(server.download(blob, file));
        const bool resumed = file.resumed();
        const std::string digest = file.digest();
        if (digest == blob.digest) {
            return {};
        }
        TRY(file.restart());
        if (!resumed) {
            return Error(EBADMSG, "blob " + blob.digest + ": what came has digest " + digest);
        }
        // What an earlier download had left may be what is wrong: once more, from the beginning.
        spdlog::warn("blob {}: what was left of a broken download is damaged", blob.digest);
    }
}

}  // namespace moat::cri
