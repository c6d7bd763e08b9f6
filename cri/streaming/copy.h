#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "cri/streaming/stream.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri::streaming {

using Descriptor = boost::asio::posix::stream_descriptor;
using DescriptorPtr = std::shared_ptr<Descriptor>;

DescriptorPtr make_descriptor(boost::asio::io_context& io, ScopedFd fd);

enum class CopyEnd {
    kClient,      ///< the client has ended its side, or does not want any more
    kDescriptor,  ///< the descriptor has: end of file, or an error
};

/// Copies what the client sends until one of the two has ended; then `ended`, once. The next bytes
/// are taken from the client when the descriptor has taken the last ones.
void copy_in(StreamPtr from, DescriptorPtr to, std::function<void(CopyEnd)> ended);
/// Copies to the client, no faster than it takes; the descriptor is left open.
void copy_out(DescriptorPtr from, StreamPtr to, std::function<void(CopyEnd)> ended);

}  // namespace moat::cri::streaming
