// The RPCs that are still to come. A client learns which one it asked for, and kubelet falls back
// where it knows how.

#include "cri/server/runtime_service.h"

namespace moat::cri {

namespace {

::grpc::Status unbuilt(const char* name) {
    return {::grpc::StatusCode::UNIMPLEMENTED,
            std::string("runtime.v1.RuntimeService/") + name + ": not built yet"};
}

}  // namespace

#define MOAT_UNBUILT(Name)                                                                 \
    ::grpc::Status RuntimeService::Name(::grpc::ServerContext*, const api::Name##Request*, \
                                        api::Name##Response*) {                            \
        return unbuilt(#Name);                                                             \
    }
MOAT_UNBUILT(CheckpointContainer)
MOAT_UNBUILT(CheckpointPod)
MOAT_UNBUILT(RestorePod)
#undef MOAT_UNBUILT

}  // namespace moat::cri
