#include "cri/images/blob_reader.h"

#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <unistd.h>
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

/// By ISA-L: unpacking is most of what a pull costs, and zlib takes three times as long for it.
class GzipReader : public Reader {
  public:
    explicit GzipReader(ScopedFd fd) : Reader(std::move(fd)) { isal_inflate_init(&state_); }

    Result<std::string_view> unpack() override {
        for (;;) {
            // What it has taken in may fill more than one output buffer.
            if (state_.avail_in == 0 && !full_ && !TRY(more())) {
                return in_member_ ? Result<std::string_view>(cut_off())
                                  : Result<std::string_view>(std::string_view());
            }
            if (!in_member_) {
                // pigz and stargz write many members; their contents follow each other.
                in_member_ = true;
                TRY(skip_header());
                isal_inflate_reset(&state_);
                state_.crc_flag = ISAL_GZIP_NO_HDR_VER;  // the trailer's checksum counts
            }
            state_.next_out = reinterpret_cast<uint8_t*>(output_.data());
            state_.avail_out = static_cast<uint32_t>(output_.size());
            if (const int code = isal_inflate(&state_); code != ISAL_DECOMP_OK) {
                return Error(EBADMSG, code == ISAL_INCORRECT_CHECKSUM ? "gzip: wrong checksum"
                                                                      : "gzip: damaged");
            }
            full_ = state_.avail_out == 0;
            if (state_.block_state == ISAL_BLOCK_FINISH) {
                in_member_ = false;
                full_ = false;
            }
            if (const size_t n = output_.size() - state_.avail_out; n != 0) {
                return std::string_view(output_.data(), n);
            }
        }
    }

  private:
    static constexpr int kHasHeaderChecksum = 2, kHasExtra = 4, kHasName = 8, kHasComment = 16,
                         kReserved = 0xe0;

    static Error cut_off() { return Error(EBADMSG, "the gzip stream is cut off"); }

    /// False at the end of the file.
    Result<bool> more() {
        const std::string_view got = TRY(fill());
        state_.next_in = reinterpret_cast<uint8_t*>(input_.data());
        state_.avail_in = static_cast<uint32_t>(got.size());
        return !got.empty();
    }
    Result<int> byte() {
        if (state_.avail_in == 0 && !TRY(more())) {
            return cut_off();
        }
        --state_.avail_in;
        return *state_.next_in++;
    }
    Status skip(int bytes) {
        for (; bytes > 0; --bytes) {
            TRY(byte());
        }
        return {};
    }
    /// RFC 1952, section 2.3. Not by isal_read_gzip_header(), which loses its place when a name or
    /// an extra field goes over the end of the input buffer.
    Status skip_header() {
        int start[4];  // two of magic, method, flags
        for (int& one : start) {
            one = TRY(byte());
        }
        if (start[0] != 0x1f || start[1] != 0x8b) {
            return Error(EBADMSG, "gzip: no header");
        }
        if (start[2] != 8 || (start[3] & kReserved) != 0) {
            return Error(EBADMSG, "gzip: unknown compression method or flags");
        }
        TRY(skip(6));  // time, level, system
        if ((start[3] & kHasExtra) != 0) {
            const int low = TRY(byte());
            TRY(skip(low | TRY(byte()) << 8));
        }
        for (const int text : {kHasName, kHasComment}) {
            while ((start[3] & text) != 0 && TRY(byte()) != 0) {
            }
        }
        return skip((start[3] & kHasHeaderChecksum) != 0 ? 2 : 0);
    }

    inflate_state state_;
    bool in_member_ = false;
    bool full_ = false;  ///< the last output buffer: there may be more without any new input
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
