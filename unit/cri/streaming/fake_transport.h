#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cri/streaming/stream.h"

namespace moat::cri::streaming {

/// A client in the test's hands. Writes are done when the test says so, or at once.
class FakeTransport final : public Transport {
  public:
    void read(ReadHandler handler) override { reader = std::move(handler); }
    void write(std::string bytes, WriteHandler handler) override {
        writes++;
        writer = std::move(handler);
        sent += bytes;
        if (at_once) {
            done(true);
        }
    }
    void close(std::function<void()> handler) override {
        closed = true;
        handler();
    }

    void done(bool ok) {
        if (const auto handler = std::exchange(writer, nullptr)) {
            handler(ok);
        }
    }
    bool wanted() const { return static_cast<bool>(reader); }
    /// False: nobody reads.
    bool arrive(std::string_view bytes, bool begins = true, bool ends = true) {
        const auto handler = std::exchange(reader, nullptr);
        if (handler) {
            handler({.bytes = bytes, .begins_message = begins, .ends_message = ends});
        }
        return static_cast<bool>(handler);
    }
    void gone() {
        if (const auto handler = std::exchange(reader, nullptr)) {
            handler({.end = true});
        }
    }

    ReadHandler reader;
    WriteHandler writer;
    std::string sent;
    int writes = 0;
    bool at_once = true;
    bool closed = false;
};

}  // namespace moat::cri::streaming
