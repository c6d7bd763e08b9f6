#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include <charconv>

#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

namespace {

/// Linux: fs/seq_file.c keeps one buffer per open file and starts over at position 0.
class TextFile final : public File {
  public:
    TextFile(uint32_t flags, TextSource source, TextTarget target)
        : File(flags), source_(std::move(source)), target_(std::move(target)) {}

    Result<size_t> read(Task& task, IoBuffer& destination) override {
        int64_t offset;
        {
            MutexLock lock(mu_);
            offset = position_;
        }
        const size_t n = TRY(pread(task, destination, offset));
        MutexLock lock(mu_);
        position_ = offset + static_cast<int64_t>(n);
        return n;
    }

    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset) override {
        if (!source_) {
            return Errno(EINVAL);
        }
        std::shared_ptr<const std::string> content;
        {
            MutexLock lock(mu_);
            content = content_;
        }
        if (!content || offset == 0) {
            content = std::make_shared<const std::string>(TRY(source_(task)));
            MutexLock lock(mu_);
            content_ = content;
        }
        if (offset >= static_cast<int64_t>(content->size())) {
            return 0u;
        }
        return destination.put(content->data() + offset,
                               content->size() - static_cast<size_t>(offset));
    }

    Result<size_t> write(Task& task, IoBuffer& source) override {
        if (!target_ || source.remaining() > kMaxTextWrite) {
            return Errno(EINVAL);
        }
        std::string text(source.remaining(), '\0');
        const size_t n = TRY(source.take(text.data(), text.size()));
        text.resize(n);
        while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) {
            text.pop_back();
        }
        TRY(target_(task, text));
        return n;
    }

    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t) override {
        return write(task, source);
    }

    Result<int64_t> seek(Task&, int64_t offset, int whence) override {
        MutexLock lock(mu_);
        int64_t base = 0;
        if (whence == SEEK_CUR) {
            base = position_;
        } else if (whence != SEEK_SET) {
            return Errno(EINVAL);  // the end is not known before it is produced
        }
        int64_t target;
        if (__builtin_add_overflow(base, offset, &target) || target < 0) {
            return Errno(EINVAL);
        }
        position_ = target;
        return target;
    }

    Status truncate(Task&, int64_t) override { return target_ ? Status() : Status(Errno(EINVAL)); }

  private:
    const TextSource source_;
    const TextTarget target_;
    Mutex<LockRank::kFilePosition> mu_;
    int64_t position_ GUARDED_BY(mu_) = 0;
    std::shared_ptr<const std::string> content_ GUARDED_BY(mu_);
};

}  // namespace

RefPtr<File> make_text_file(uint32_t flags, const Path& path, TextSource source,
                            TextTarget target) {
    auto file = make_ref<TextFile>(flags, std::move(source), std::move(target));
    file->set_path(path);
    return file;
}

TextInode::TextInode(SyntheticFileSystem& fs, uint32_t permissions, TextSource source,
                     TextTarget target, uint64_t ino)
    : SyntheticInode(fs, S_IFREG | permissions, ino),
      source_(std::move(source)),
      target_(std::move(target)) {}

Result<RefPtr<File>> TextInode::open(Task&, const Path& path, uint32_t flags) {
    return make_text_file(flags, path, source_, target_);
}

Status TextInode::set_attributes(const AttributeChange& change) {
    if (change.size && target_) {
        AttributeChange rest = change;
        rest.size.reset();
        return SyntheticInode::set_attributes(rest);
    }
    return SyntheticInode::set_attributes(change);
}

void append_text(std::string& to, const char* format, ...) {
    char small[512];
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    const int n = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (n > 0 && static_cast<size_t>(n) < sizeof small) {
        to.append(small, static_cast<size_t>(n));
    } else if (n > 0) {
        const size_t old = to.size();
        to.resize(old + static_cast<size_t>(n) + 1);
        vsnprintf(to.data() + old, static_cast<size_t>(n) + 1, format, again);
        to.pop_back();
    }
    va_end(again);
}

std::string format_text(const char* format, ...) {
    char small[512];
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    const int n = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    std::string text;
    if (n > 0 && static_cast<size_t>(n) < sizeof small) {
        text.assign(small, static_cast<size_t>(n));
    } else if (n > 0) {
        text.resize(static_cast<size_t>(n) + 1);
        vsnprintf(text.data(), text.size(), format, again);
        text.pop_back();
    }
    va_end(again);
    return text;
}

std::optional<int64_t> parse_number(std::string_view text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

void append_escaped(std::string& to, std::string_view text) {
    for (const char c : text) {
        if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
            append_text(to, "\\%03o", static_cast<unsigned char>(c));
        } else {
            to.push_back(c);
        }
    }
}

}  // namespace moat::kernel
