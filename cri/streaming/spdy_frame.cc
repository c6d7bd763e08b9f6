#include "cri/streaming/spdy_frame.h"

#include <cstring>

namespace moat::cri::streaming {

namespace {

// The dictionary that both sides of SPDY/3 compress headers with: each of these behind its length
// in four bytes, and then the text.
constexpr const char* kDictionaryWords[] = {"options",
                                            "head",
                                            "post",
                                            "put",
                                            "delete",
                                            "trace",
                                            "accept",
                                            "accept-charset",
                                            "accept-encoding",
                                            "accept-language",
                                            "accept-ranges",
                                            "age",
                                            "allow",
                                            "authorization",
                                            "cache-control",
                                            "connection",
                                            "content-base",
                                            "content-encoding",
                                            "content-language",
                                            "content-length",
                                            "content-location",
                                            "content-md5",
                                            "content-range",
                                            "content-type",
                                            "date",
                                            "etag",
                                            "expect",
                                            "expires",
                                            "from",
                                            "host",
                                            "if-match",
                                            "if-modified-since",
                                            "if-none-match",
                                            "if-range",
                                            "if-unmodified-since",
                                            "last-modified",
                                            "location",
                                            "max-forwards",
                                            "pragma",
                                            "proxy-authenticate",
                                            "proxy-authorization",
                                            "range",
                                            "referer",
                                            "retry-after",
                                            "server",
                                            "te",
                                            "trailer",
                                            "transfer-encoding",
                                            "upgrade",
                                            "user-agent",
                                            "vary",
                                            "via",
                                            "warning",
                                            "www-authenticate",
                                            "method",
                                            "get",
                                            "status",
                                            "200 OK",
                                            "version",
                                            "HTTP/1.1",
                                            "url",
                                            "public",
                                            "set-cookie",
                                            "keep-alive",
                                            "origin"};
constexpr const char kDictionaryText[] =
    "10010120120220520630030230330430530630740240540640740840941041141241341441541641750250"
    "4505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Reques"
    "t401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemente"
    "d503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon,"
    " Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,appl"
    "ication/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip"
    ",deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

enum ControlType : uint16_t {
    kSynStream = 1,
    kSynReply = 2,
    kRstStream = 3,
    kSettings = 4,
    kPing = 6,
    kGoaway = 7,
    kHeaders = 8,
    kWindowUpdate = 9,
};

constexpr size_t kHead = 8;
constexpr uint16_t kVersion = 3;
constexpr uint8_t kFin = 1;
constexpr uint8_t kUnidirectional = 2;
constexpr uint32_t kIdMask = 0x7fffffff;

void put32(std::string& to, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        to += static_cast<char>(value >> shift);
    }
}

uint32_t get32(std::string_view from, size_t at) {
    uint32_t value = 0;
    for (size_t i = at; i < at + 4; i++) {
        value = value << 8 | static_cast<uint8_t>(from[i]);
    }
    return value;
}

const std::string& dictionary() {
    static const std::string* const text = [] {
        auto* all = new std::string;
        for (const char* word : kDictionaryWords) {
            put32(*all, static_cast<uint32_t>(strlen(word)));
            *all += word;
        }
        *all += kDictionaryText;
        return all;
    }();
    return *text;
}

const Bytef* bytes_of(std::string_view text) { return reinterpret_cast<const Bytef*>(text.data()); }

Error malformed(std::string what) { return Error(EBADMSG, "SPDY: " + std::move(what)); }

std::string control(ControlType type, uint8_t flags, std::string_view payload) {
    std::string frame;
    put32(frame, 0x80000000u | uint32_t{kVersion} << 16 | type);
    put32(frame, uint32_t{flags} << 24 | static_cast<uint32_t>(payload.size()));
    frame += payload;
    return frame;
}

}  // namespace

// ---------------------------------------------------------------- reader

FrameReader::FrameReader() { inflateInit(&inflate_); }
FrameReader::~FrameReader() { inflateEnd(&inflate_); }

Status FrameReader::feed(std::string_view bytes, FrameSink& sink) {
    while (!bytes.empty()) {
        if (in_data_) {
            const std::string_view piece = bytes.substr(0, data_left_);
            bytes.remove_prefix(piece.size());
            data_left_ -= piece.size();
            in_data_ = data_left_ > 0;
            sink.on_data(data_id_, piece, !in_data_ && data_fin_);
            continue;
        }
        const size_t wanted = frame_size_ == 0 ? kHead : frame_size_;
        const std::string_view piece = bytes.substr(0, wanted - frame_.size());
        frame_ += piece;
        bytes.remove_prefix(piece.size());
        if (frame_.size() < wanted) {
            return {};
        }
        if (frame_size_ == 0) {
            const uint32_t first = get32(frame_, 0);
            const size_t length = get32(frame_, 4) & 0xffffff;
            if ((first & ~kIdMask) == 0) {
                data_id_ = first;
                data_fin_ = (static_cast<uint8_t>(frame_[4]) & kFin) != 0;
                data_left_ = length;
                in_data_ = length > 0;
                frame_.clear();
                if (!in_data_) {
                    sink.on_data(data_id_, {}, data_fin_);
                }
                continue;
            }
            if (length > kMaxControlFrame) {
                return malformed("a control frame of " + std::to_string(length) + " bytes");
            }
            frame_size_ = kHead + length;
            if (length > 0) {
                continue;
            }
        }
        TRY(control_frame(sink));
        frame_.clear();
        frame_size_ = 0;
    }
    return {};
}

Status FrameReader::control_frame(FrameSink& sink) {
    const uint32_t first = get32(frame_, 0);
    const auto version = static_cast<uint16_t>(first >> 16 & 0x7fff);
    const auto type = static_cast<uint16_t>(first);
    const auto flags = static_cast<uint8_t>(frame_[4]);
    const std::string_view payload = std::string_view(frame_).substr(kHead);
    if (version != kVersion) {
        return malformed("version " + std::to_string(version));
    }
    const auto needs = [&](size_t size) -> Status {
        return payload.size() >= size
                   ? Status()
                   : malformed("a control frame of type " + std::to_string(type) + " is too short");
    };
    switch (type) {
        case kSynStream: {
            TRY(needs(10));
            auto found = TRY(headers(payload.substr(10)));
            sink.on_syn_stream(get32(payload, 0) & kIdMask, std::move(found), (flags & kFin) != 0,
                               (flags & kUnidirectional) != 0);
            return {};
        }
        case kSynReply:
        case kHeaders: {
            TRY(needs(4));
            auto found = TRY(headers(payload.substr(4)));
            const uint32_t id = get32(payload, 0) & kIdMask;
            if (type == kSynReply) {
                sink.on_syn_reply(id, std::move(found), (flags & kFin) != 0);
            } else {
                sink.on_headers(id, std::move(found), (flags & kFin) != 0);
            }
            return {};
        }
        case kRstStream:
            TRY(needs(8));
            sink.on_rst_stream(get32(payload, 0) & kIdMask, get32(payload, 4));
            return {};
        case kPing:
            TRY(needs(4));
            sink.on_ping(get32(payload, 0));
            return {};
        case kGoaway:
            TRY(needs(8));
            sink.on_goaway(get32(payload, 0) & kIdMask);
            return {};
        case kSettings:
        case kWindowUpdate:
            return {};  // the peers neither send nor heed them
        default:
            return malformed("a control frame of type " + std::to_string(type));
    }
}

/// One block of the stream of compressed headers: the peer has flushed behind it.
Result<std::string> FrameReader::inflate_block(std::string_view block) {
    std::string out;
    inflate_.next_in = const_cast<Bytef*>(bytes_of(block));
    inflate_.avail_in = static_cast<uInt>(block.size());
    while (true) {
        Bytef buffer[4096];
        inflate_.next_out = buffer;
        inflate_.avail_out = sizeof buffer;
        const int result = inflate(&inflate_, Z_SYNC_FLUSH);
        if (result == Z_NEED_DICT) {
            const std::string& known = dictionary();
            if (inflateSetDictionary(&inflate_, bytes_of(known), static_cast<uInt>(known.size())) !=
                Z_OK) {
                return malformed("headers are compressed with another dictionary");
            }
            continue;
        }
        if (result != Z_OK && result != Z_BUF_ERROR) {
            return malformed("headers cannot be inflated");
        }
        out.append(reinterpret_cast<const char*>(buffer), sizeof buffer - inflate_.avail_out);
        if (out.size() > kMaxHeaderBlock) {
            return malformed("headers of more than " + std::to_string(kMaxHeaderBlock) + " bytes");
        }
        if (inflate_.avail_out > 0) {
            return inflate_.avail_in == 0 ? Result<std::string>(std::move(out))
                                          : malformed("headers have a tail that is not theirs");
        }
    }
}

Result<SpdyHeaders> FrameReader::headers(std::string_view block) {
    const std::string text = TRY(inflate_block(block));
    std::string_view rest = text;
    const auto number = [&]() -> Result<uint32_t> {
        if (rest.size() < 4) {
            return malformed("headers end too early");
        }
        const uint32_t value = get32(rest, 0);
        rest.remove_prefix(4);
        return value;
    };
    const auto word = [&]() -> Result<std::string> {
        const uint32_t length = TRY(number());
        if (length > rest.size()) {
            return malformed("a header is longer than all of them");
        }
        std::string value(rest.substr(0, length));
        rest.remove_prefix(length);
        return value;
    };
    const uint32_t count = TRY(number());
    if (count > kMaxHeaders) {
        return malformed(std::to_string(count) + " headers");
    }
    SpdyHeaders found;
    for (uint32_t i = 0; i < count; i++) {
        std::string name = TRY(word());
        for (char& c : name) {
            c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        }
        const std::string values = TRY(word());
        // Several values of one name are separated by NUL.
        for (size_t from = 0; from <= values.size();) {
            const size_t to = std::min(values.find('\0', from), values.size());
            found.emplace(name, values.substr(from, to - from));
            if (found.size() > kMaxHeaders) {
                return malformed("too many headers");
            }
            from = to + 1;
        }
    }
    if (!rest.empty()) {
        return malformed("headers have a tail that is not theirs");
    }
    return found;
}

// ---------------------------------------------------------------- writer

FrameWriter::FrameWriter() {
    const std::string& known = dictionary();
    deflateInit(&deflate_, Z_BEST_COMPRESSION);
    deflateSetDictionary(&deflate_, bytes_of(known), static_cast<uInt>(known.size()));
}
FrameWriter::~FrameWriter() { deflateEnd(&deflate_); }

std::string FrameWriter::deflate_block(const SpdyHeaders& headers) {
    std::string block;
    uint32_t names = 0;
    for (auto it = headers.begin(); it != headers.end(); names++) {
        const std::string& name = it->first;
        std::string values = it->second;
        for (++it; it != headers.end() && it->first == name; ++it) {
            values += '\0' + it->second;
        }
        put32(block, static_cast<uint32_t>(name.size()));
        block += name;
        put32(block, static_cast<uint32_t>(values.size()));
        block += values;
    }
    std::string plain;
    put32(plain, names);
    plain += block;
    std::string out;
    deflate_.next_in = const_cast<Bytef*>(bytes_of(plain));
    deflate_.avail_in = static_cast<uInt>(plain.size());
    do {
        Bytef buffer[4096];
        deflate_.next_out = buffer;
        deflate_.avail_out = sizeof buffer;
        deflate(&deflate_, Z_SYNC_FLUSH);
        out.append(reinterpret_cast<const char*>(buffer), sizeof buffer - deflate_.avail_out);
    } while (deflate_.avail_out == 0);
    return out;
}

std::string FrameWriter::syn_stream(uint32_t id, const SpdyHeaders& headers, bool fin) {
    std::string payload;
    put32(payload, id);
    put32(payload, 0);                // associated to no other stream
    payload += std::string(2, '\0');  // priority, slot
    payload += deflate_block(headers);
    return control(kSynStream, fin ? kFin : 0, payload);
}

std::string FrameWriter::syn_reply(uint32_t id, const SpdyHeaders& headers, bool fin) {
    std::string payload;
    put32(payload, id);
    payload += deflate_block(headers);
    return control(kSynReply, fin ? kFin : 0, payload);
}

std::string FrameWriter::rst_stream(uint32_t id, RstStatus status) {
    std::string payload;
    put32(payload, id);
    put32(payload, static_cast<uint32_t>(status));
    return control(kRstStream, 0, payload);
}

std::string FrameWriter::ping(uint32_t id) {
    std::string payload;
    put32(payload, id);
    return control(kPing, 0, payload);
}

std::string FrameWriter::goaway(uint32_t last_good_id, uint32_t status) {
    std::string payload;
    put32(payload, last_good_id);
    put32(payload, status);
    return control(kGoaway, 0, payload);
}

std::string FrameWriter::data(uint32_t id, std::string_view bytes, bool fin) {
    std::string frame;
    put32(frame, id);
    put32(frame, uint32_t{fin} << 24 | static_cast<uint32_t>(bytes.size()));
    frame += bytes;
    return frame;
}

}  // namespace moat::cri::streaming
