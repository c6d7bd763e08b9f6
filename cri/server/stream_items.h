#pragma once

#include <grpcpp/support/status.h>

#include <algorithm>
#include <vector>

#include "cri/server/response_writer.h"

namespace moat::cri {

/// KEP-5825: a list as messages of at most kStreamedAtOnce items, at least one each; an empty list
/// is no message at all. `items` names the response's repeated field.
inline constexpr size_t kStreamedAtOnce = 64;

template <typename Response, typename Item, typename Items>
::grpc::Status stream_items(ResponseWriter<Response>& writer, std::vector<Item> list, Items items) {
    for (size_t at = 0; at < list.size(); at += kStreamedAtOnce) {
        Response response;
        for (size_t i = at; i < std::min(list.size(), at + kStreamedAtOnce); ++i) {
            *items(response)->Add() = std::move(list[i]);
        }
        if (!writer.write(response)) {
            return {::grpc::StatusCode::CANCELLED, "the client has gone"};
        }
    }
    return ::grpc::Status::OK;
}

}  // namespace moat::cri
