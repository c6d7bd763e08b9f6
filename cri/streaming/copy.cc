#include "cri/streaming/copy.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <utility>

namespace moat::cri::streaming {

namespace {

using ErrorCode = boost::system::error_code;

struct CopyIn : std::enable_shared_from_this<CopyIn> {
    StreamPtr from;
    DescriptorPtr to;
    std::function<void(CopyEnd)> ended;
    std::string bytes;

    void next() {
        from->read([self = shared_from_this()](std::string taken) {
            if (taken.empty()) {
                self->ended(CopyEnd::kClient);
                return;
            }
            self->bytes = std::move(taken);
            boost::asio::async_write(*self->to, boost::asio::buffer(self->bytes),
                                     [self](const ErrorCode& error, size_t) {
                                         if (error) {
                                             self->from->discard();
                                             self->ended(CopyEnd::kDescriptor);
                                         } else {
                                             self->next();
                                         }
                                     });
        });
    }
};

struct CopyOut : std::enable_shared_from_this<CopyOut> {
    DescriptorPtr from;
    StreamPtr to;
    std::function<void(CopyEnd)> ended;
    char bytes[kChunk];

    void next() {
        from->async_read_some(boost::asio::buffer(bytes),
                              [self = shared_from_this()](const ErrorCode& error, size_t n) {
                                  if (error) {
                                      // A pty says EIO where a pipe says end of file.
                                      self->ended(CopyEnd::kDescriptor);
                                      return;
                                  }
                                  self->to->write(std::string(self->bytes, n), [self](bool sent) {
                                      if (sent) {
                                          self->next();
                                      } else {
                                          self->ended(CopyEnd::kClient);
                                      }
                                  });
                              });
    }
};

}  // namespace

DescriptorPtr make_descriptor(boost::asio::io_context& io, ScopedFd fd) {
    return std::make_shared<Descriptor>(io, fd.release());
}

void copy_in(StreamPtr from, DescriptorPtr to, std::function<void(CopyEnd)> ended) {
    const auto copy = std::make_shared<CopyIn>();
    copy->from = std::move(from);
    copy->to = std::move(to);
    copy->ended = std::move(ended);
    copy->next();
}

void copy_out(DescriptorPtr from, StreamPtr to, std::function<void(CopyEnd)> ended) {
    const auto copy = std::make_shared<CopyOut>();
    copy->from = std::move(from);
    copy->to = std::move(to);
    copy->ended = std::move(ended);
    copy->next();
}

}  // namespace moat::cri::streaming
