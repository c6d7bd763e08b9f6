// Requests as clients send them to both services: bytes that are parsed as a method's message and
// handed to its handler, behind which a whole moatd works on a runtime of the tests' own. It makes
// directories, files and rows as moatd does, so scripts/run-fuzzers.sh runs it as nobody, in mounts
// and a network of its own.
//
// The first byte chooses the method. Inputs are mutated field by field (LLVMFuzzerCustomMutator),
// so that most of them are messages: what libFuzzer does to bytes would seldom get past the parser.

#include <fcntl.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "cri/handlers/handlers.h"
#include "cri/images/archive.h"
#include "cri/server/checked_services.h"
#include "cri/server/node.h"
#include "unit/cri/app_pod.h"
#include "unit/cri/fake_runtime.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

/// A moatd with an image, a pod and a container that runs, kept for all inputs.
struct World {
    TempDir dir;
    std::unique_ptr<Node> node;
    std::unique_ptr<CheckedRuntimeService> runtime;
    std::unique_ptr<CheckedImageService> images;
    std::string pod;
    std::string container;

    World() {
        spdlog::set_level(spdlog::level::off);
        Settings settings;
        settings.root = dir / "root";
        settings.state = dir / "state";
        settings.cni_conf_dir = dir / "cni";
        settings.cdi_spec_dirs = {dir / "cdi"};
        settings.registry_config_dir = "";
        auto handlers = std::make_unique<Handlers>();
        handlers->add("moat", std::make_unique<moat::runtime::FakeRuntime>());
        handlers->add("native", std::make_unique<moat::runtime::FakeRuntime>()).kernel =
            Kernel::kNode;
        auto opened = Node::open(settings, std::move(handlers));
        need(opened.ok(), message_of(opened));
        node = std::move(*opened);
        runtime = std::make_unique<CheckedRuntimeService>(*node);
        images = std::make_unique<CheckedImageService>(*node);
        load_image();
        auto made = node->pods->run(pod_config(), "moat");
        need(made.ok(), message_of(made));
        pod = *made;
        renew_container();
    }
    static void need(bool there, const std::string& why) {
        if (!there) {
            fprintf(stderr, "the fuzzer's own world: %s\n", why.c_str());
            abort();
        }
    }
    void load_image() {
        need(write_file(dir / "image.tar", app_archive()).ok(), "write the image");
        const auto loaded = load_archive(*node->images, dir / "image.tar", "");
        need(loaded.ok(), message_of(loaded));
    }
    api::PodSandboxConfig pod_config() const {
        api::PodSandboxConfig config = app_pod(dir / "logs");
        config.set_hostname("host");
        return config;
    }
    api::ContainerConfig container_config() const {
        api::ContainerConfig config = app_container();
        auto* mount = config.add_mounts();
        mount->set_host_path(dir / "volume");
        mount->set_container_path("/data");
        config.add_envs()->set_key("A");
        config.add_command("/app");
        return config;
    }
    void renew_container() {
        const auto made = node->containers->create(pod, container_config());
        need(made.ok(), message_of(made));
        container = *made;
        need(node->containers->start(container).ok(), "start");
    }
    /// As before the input: what it made goes, what it ended or removed comes back.
    void settle() {
        for (const PodPtr& one : node->pods->list()) {
            if (one->id != pod) {
                (void)node->pods->remove(one->id);
            }
        }
        const auto kept = node->pods->find(pod);
        if (!kept.ok() || (*kept)->snapshot().state != PodState::kReady) {
            (void)node->pods->remove(pod);
            auto made = node->pods->run(pod_config(), "moat");
            need(made.ok(), message_of(made));
            pod = *made;
        }
        for (const ContainerPtr& one : node->containers->list()) {
            if (one->id != container) {
                (void)node->containers->remove(one->id);
            }
        }
        const auto running = node->containers->find(container);
        if (!running.ok() || (*running)->snapshot().phase != ContainerPhase::kRunning) {
            (void)node->containers->remove(container);
            if (const auto image = node->images->find("test/app:1");
                !image.ok() || !image->has_value()) {
                load_image();
            }
            renew_container();
        }
    }
};

World& world() {
    static World world;
    return world;
}

struct Method {
    std::unique_ptr<Message> (*request)();
    ::grpc::Status (*call)(World&, const Message&);
};

#define MOAT_METHOD(Service, Name)                                                                 \
    Method {                                                                                       \
        [] { return std::unique_ptr<Message>(std::make_unique<api::Name##Request>()); },           \
            [](World& w, const Message& request) {                                                 \
                ::grpc::ServerContext context;                                                     \
                api::Name##Response response;                                                      \
                return w.Service->Name(&context, static_cast<const api::Name##Request*>(&request), \
                                       &response);                                                 \
            }                                                                                      \
    }

// Not PullImage, which would ask registries. The streams' lists are those of the List methods.
const Method kMethods[] = {MOAT_METHOD(runtime, RunPodSandbox),
                           MOAT_METHOD(runtime, CreateContainer),
                           MOAT_METHOD(runtime, RunPodSandbox),
                           MOAT_METHOD(runtime, CreateContainer),
                           MOAT_METHOD(runtime, Version),
                           MOAT_METHOD(runtime, Status),
                           MOAT_METHOD(runtime, RuntimeConfig),
                           MOAT_METHOD(runtime, UpdateRuntimeConfig),
                           MOAT_METHOD(runtime, StopPodSandbox),
                           MOAT_METHOD(runtime, RemovePodSandbox),
                           MOAT_METHOD(runtime, PodSandboxStatus),
                           MOAT_METHOD(runtime, ListPodSandbox),
                           MOAT_METHOD(runtime, UpdatePodSandboxResources),
                           MOAT_METHOD(runtime, StartContainer),
                           MOAT_METHOD(runtime, RemoveContainer),
                           MOAT_METHOD(runtime, ListContainers),
                           MOAT_METHOD(runtime, ContainerStatus),
                           MOAT_METHOD(runtime, ReopenContainerLog),
                           MOAT_METHOD(runtime, UpdateContainerResources),
                           MOAT_METHOD(runtime, ContainerStats),
                           MOAT_METHOD(runtime, ListContainerStats),
                           MOAT_METHOD(runtime, PodSandboxStats),
                           MOAT_METHOD(runtime, ListPodSandboxStats),
                           MOAT_METHOD(runtime, ListPodSandboxMetrics),
                           MOAT_METHOD(runtime, Exec),
                           MOAT_METHOD(runtime, Attach),
                           MOAT_METHOD(runtime, PortForward),
                           MOAT_METHOD(runtime, CheckpointPod),
                           MOAT_METHOD(images, ListImages),
                           MOAT_METHOD(images, ImageStatus),
                           MOAT_METHOD(images, RemoveImage),
                           MOAT_METHOD(images, ImageFsInfo)};

/// Words that mean something somewhere.
const char* const kWords[] = {"",
                              ".",
                              "..",
                              "/",
                              "../../x",
                              "/proc/self/fd/0",
                              "/dev/null",
                              "test/app:1",
                              "localhost/x",
                              "net.a",
                              "a\nb",
                              "sha256:",
                              "SYS_ADMIN",
                              "ALL",
                              "0-3",
                              "vendor.com/c=d",
                              "cdi.k8s.io/x",
                              "2MB",
                              "dev.moat.spec.mount.a.type",
                              "dev.gvisor.spec.mount.b.share",
                              "\xc3\xbc",
                              "10.0.0.0/24"};

class Mutator {
  public:
    explicit Mutator(unsigned seed) : random_(seed) {}

    void mutate(Message& message, int depth = 0) {
        const auto* type = message.GetDescriptor();
        if (type->field_count() == 0 || depth > 8) {
            return;
        }
        const Reflection& reflection = *message.GetReflection();
        const FieldDescriptor* field = type->field(pick(type->field_count()));
        if (field->is_repeated()) {
            const int count = reflection.FieldSize(message, field);
            if (count > 0 && pick(4) == 0) {
                reflection.RemoveLast(&message, field);
            } else if (count == 0 || pick(3) == 0) {
                add(message, field, depth);
            } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
                mutate(*reflection.MutableRepeatedMessage(&message, field, pick(count)), depth + 1);
            } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
                const int at = pick(count);
                reflection.SetRepeatedString(
                    &message, field, at, text(reflection.GetRepeatedString(message, field, at)));
            }
            return;
        }
        if (pick(8) == 0) {
            reflection.ClearField(&message, field);
            return;
        }
        switch (field->cpp_type()) {
            case FieldDescriptor::CPPTYPE_MESSAGE:
                return mutate(*reflection.MutableMessage(&message, field), depth + 1);
            case FieldDescriptor::CPPTYPE_STRING:
                return reflection.SetString(&message, field,
                                            text(reflection.GetString(message, field)));
            case FieldDescriptor::CPPTYPE_BOOL:
                return reflection.SetBool(&message, field, pick(2) == 0);
            case FieldDescriptor::CPPTYPE_ENUM:
                return reflection.SetEnumValue(&message, field, pick(6));
            case FieldDescriptor::CPPTYPE_INT32:
                return reflection.SetInt32(&message, field, static_cast<int32_t>(number()));
            case FieldDescriptor::CPPTYPE_INT64:
                return reflection.SetInt64(&message, field, number());
            case FieldDescriptor::CPPTYPE_UINT32:
                return reflection.SetUInt32(&message, field, static_cast<uint32_t>(number()));
            case FieldDescriptor::CPPTYPE_UINT64:
                return reflection.SetUInt64(&message, field, static_cast<uint64_t>(number()));
            default:
                return;
        }
    }
    int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }

  private:
    void add(Message& message, const FieldDescriptor* field, int depth) {
        const Reflection& reflection = *message.GetReflection();
        switch (field->cpp_type()) {
            case FieldDescriptor::CPPTYPE_MESSAGE:
                return mutate(*reflection.AddMessage(&message, field), depth + 1);
            case FieldDescriptor::CPPTYPE_STRING:
                return reflection.AddString(&message, field, text(""));
            case FieldDescriptor::CPPTYPE_INT32:
                return reflection.AddInt32(&message, field, static_cast<int32_t>(number()));
            case FieldDescriptor::CPPTYPE_INT64:
                return reflection.AddInt64(&message, field, number());
            default:
                return;
        }
    }
    int64_t number() {
        static constexpr int64_t kNumbers[] = {
            0, 1, -1, 2, 80, 1000, 65535, 65536, INT32_MAX, INT64_MAX, INT64_MIN, 1 << 20};
        return pick(3) == 0 ? static_cast<int64_t>(random_()) : kNumbers[pick(std::size(kNumbers))];
    }
    std::string text(std::string old) {
        switch (pick(5)) {
            case 0:
                return kWords[pick(std::size(kWords))];
            case 1:
                return old + "/" + kWords[pick(std::size(kWords))];
            case 2:
                return pick(2) == 0 ? world().pod : world().container;
            default:
                break;
        }
        const size_t size = old.size();
        old.resize(size + 32);
        old.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(old.data()), size, old.size()));
        return old;
    }
    std::minstd_rand random_;
};

/// A message that is all right, for inputs to begin with.
void fill_valid(Message& message) {
    const World& w = world();
    if (auto* run = dynamic_cast<api::RunPodSandboxRequest*>(&message)) {
        *run->mutable_config() = w.pod_config();
        run->mutable_config()->mutable_metadata()->set_attempt(1);
    } else if (auto* create = dynamic_cast<api::CreateContainerRequest*>(&message)) {
        create->set_pod_sandbox_id(w.pod);
        *create->mutable_config() = w.container_config();
        create->mutable_config()->mutable_metadata()->set_attempt(1);
    } else {
        for (const char* name : {"pod_sandbox_id", "container_id"}) {
            if (const auto* field = message.GetDescriptor()->FindFieldByName(name)) {
                message.GetReflection()->SetString(&message, field,
                                                   *name == 'p' ? w.pod : w.container);
            }
        }
    }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
    Mutator mutator(seed);
    if (mutator.pick(16) == 0) {
        return LLVMFuzzerMutate(data, size, max_size);  // rubbish
    }
    if (size == 0 || mutator.pick(16) == 0) {
        data[0] = static_cast<uint8_t>(mutator.pick(std::size(kMethods)));
        size = 1;
    }
    const auto request = kMethods[data[0] % std::size(kMethods)].request();
    if (size == 1 || !request->ParseFromArray(data + 1, static_cast<int>(size) - 1)) {
        request->Clear();
        fill_valid(*request);
    }
    for (int i = mutator.pick(4); i >= 0; --i) {
        mutator.mutate(*request);
    }
    const std::string bytes = request->SerializePartialAsString();
    if (bytes.size() + 1 > max_size) {
        return size;
    }
    memcpy(data + 1, bytes.data(), bytes.size());
    return bytes.size() + 1;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    World& w = world();
    if (size == 0) {
        return 0;
    }
    const Method& method = kMethods[data[0] % std::size(kMethods)];
    const auto request = method.request();
    if (!request->ParseFromArray(data + 1, static_cast<int>(size) - 1)) {
        return 0;
    }
    const ::grpc::Status status = method.call(w, *request);
    // What a client gets fits into its headers and names no crash.
    if (status.error_message().size() > 2100 || (!status.ok() && status.error_message().empty())) {
        fprintf(stderr, "code %d, %zu bytes of message\n", status.error_code(),
                status.error_message().size());
        abort();
    }
    w.settle();
    return 0;
}
