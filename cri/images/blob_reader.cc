#include "cri/images/blob_reader.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY  // for the magic numbers, which are stable
#include <zstd.h>

#include <vector>

#include "cri/base/sha256.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

constexpr size_t kChunk = 128 << 10;

class Reader : public BlobReader {
  public:
    explicit Reader(ScopedFd fd) : fd_(std::move(fd)), input_(kChunk), output_(kChunk) {}

    Result<std::string_view> next() override {
        std::string_view out = TRY(unpack());
        unpacked_.update(out);
        return out;
    }
    std::string blob_digest() override { return packed_.digest(); }
    std::string diff_id() override { return unpacked_.digest(); }

  protected:
    virtual Result<std::string_view> unpack() = 0;

    /// More of the file; empty at its end.
    Result<std::string_view> fill() {
        for (;;) {
            const ssize_t n = read(fd_.get(), input_.data(), input_.size());
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n < 0) {
                return Error::from_errno(errno, "read the blob");
            }
            const std::string_view got(input_.data(), static_cast<size_t>(n));
            packed_.update(got);
            return got;
        }
    }

    ScopedFd fd_;
    std::vector<char> input_;
    std::vector<char> output_;
    Sha256 packed_;
    Sha256 unpacked_;
};

class PlainReader : public Reader {
  public:
    using Reader::Reader;
    Result<std::string_view> unpack() override { return fill(); }
};

class GzipReader : public Reader {
  public:
    explicit GzipReader(ScopedFd fd) : Reader(std::move(fd)) {
        inflateInit2(&stream_, 15 + 16);  // 16: gzip headers only (zlib.h)
    }
    ~GzipReader() override { inflateEnd(&stream_); }

    Result<std::string_view> unpack() override {
        for (;;) {
            if (stream_.avail_in == 0) {
                const std::string_view got = TRY(fill());
                if (got.empty()) {
                    return in_member_ ? Result<std::string_view>(
                                            Error(EBADMSG, "the gzip stream is cut off"))
                                      : Result<std::string_view>(std::string_view());
                }
                stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
                stream_.avail_in = static_cast<uInt>(got.size());
            }
            if (!in_member_) {
                // pigz and stargz write many members; their contents follow each other.
                inflateReset(&stream_);
                in_member_ = true;
            }
            stream_.next_out = reinterpret_cast<Bytef*>(output_.data());
            stream_.avail_out = static_cast<uInt>(output_.size());
            const int code = inflate(&stream_, Z_NO_FLUSH);
            if (code == Z_STREAM_END) {
                in_member_ = false;
            } else if (code != Z_OK && code != Z_BUF_ERROR) {
                return Error(EBADMSG, std::string("gzip: ") +
                                          (stream_.msg != nullptr ? stream_.msg : "damaged"));
            }
            if (const size_t n = output_.size() - stream_.avail_out; n != 0) {
                return std::string_view(output_.data(), n);
            }
        }
    }

  private:
    z_stream stream_{};
    bool in_member_ = true;
};

class ZstdReader : public Reader {
  public:
    explicit ZstdReader(ScopedFd fd) : Reader(std::move(fd)), context_(ZSTD_createDCtx()) {
        // The frame's window is allocated as it says: 128 MiB is what zstd -19 and --long=27 need.
        ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, 27);
    }
    ~ZstdReader() override { ZSTD_freeDCtx(context_); }

    Result<std::string_view> unpack() override {
        for (;;) {
            if (in_.pos == in_.size && !flush_) {
                const std::string_view got = TRY(fill());
                if (got.empty()) {
                    return in_frame_ ? Result<std::string_view>(
                                           Error(EBADMSG, "the zstd stream is cut off"))
                                     : Result<std::string_view>(std::string_view());
                }
                in_ = {got.data(), got.size(), 0};
            }
            ZSTD_outBuffer out{output_.data(), output_.size(), 0};
            const size_t left = ZSTD_decompressStream(context_, &out, &in_);
            if (ZSTD_isError(left) != 0) {
                return Error(EBADMSG, std::string("zstd: ") + ZSTD_getErrorName(left));
            }
            in_frame_ = left != 0;
            // A full output buffer may hide more, without any new input.
            flush_ = out.pos == out.size && left != 0;
            if (out.pos != 0) {
                return std::string_view(output_.data(), out.pos);
            }
        }
    }

  private:
    ZSTD_DCtx* context_;
    ZSTD_inBuffer in_{nullptr, 0, 0};
    bool in_frame_ = false;
    bool flush_ = false;
};

}  // namespace

Result<std::unique_ptr<BlobReader>> BlobReader::open(const std::string& path) {
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    // By its first bytes, not by the media type: builders have mislabelled layers, readers have
    // not.
    unsigned char magic[4] = {};
    const ssize_t n = pread(fd.get(), magic, sizeof(magic), 0);
    if (n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
        return std::unique_ptr<BlobReader>(new GzipReader(std::move(fd)));
    }
    const uint32_t word = static_cast<uint32_t>(magic[0]) | static_cast<uint32_t>(magic[1]) << 8 |
                          static_cast<uint32_t>(magic[2]) << 16 |
                          static_cast<uint32_t>(magic[3]) << 24;
    if (n == 4 && (word == ZSTD_MAGICNUMBER ||
                   (word & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START)) {
        return std::unique_ptr<BlobReader>(new ZstdReader(std::move(fd)));
    }
    return std::unique_ptr<BlobReader>(new PlainReader(std::move(fd)));
}

}  // namespace moat::cri
