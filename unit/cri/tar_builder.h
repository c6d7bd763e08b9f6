#pragma once

#include <cstdio>
#include <cstring>
#include <string>

namespace moat::cri {

/// Writes ustar members byte by byte, the hostile ones too that no library would write.
class TarBuilder {
  public:
    TarBuilder& member(char type, const std::string& name, const std::string& data = "",
                       const std::string& link = "", unsigned mode = 0644, unsigned uid = 0) {
        char header[512] = {};
        std::snprintf(header, 100, "%s", name.c_str());
        std::snprintf(header + 100, 8, "%07o", mode);
        std::snprintf(header + 108, 8, "%07o", uid);
        std::snprintf(header + 116, 8, "%07o", uid);
        std::snprintf(header + 124, 12, "%011o", static_cast<unsigned>(data.size()));
        std::snprintf(header + 136, 12, "%011o", 1700000000u);
        std::memset(header + 148, ' ', 8);
        header[156] = type;
        std::snprintf(header + 157, 100, "%s", link.c_str());
        std::memcpy(header + 257, "ustar\00000", 8);
        if (type == '3' || type == '4') {
            std::snprintf(header + 329, 8, "%07o", 1u);
            std::snprintf(header + 337, 8, "%07o", 3u);
        }
        unsigned sum = 0;
        for (const char c : header) {
            sum += static_cast<unsigned char>(c);
        }
        std::snprintf(header + 148, 8, "%06o", sum);
        text_.append(header, sizeof(header));
        text_ += data;
        text_.append((512 - data.size() % 512) % 512, '\0');
        return *this;
    }
    TarBuilder& file(const std::string& name, const std::string& data) {
        return member('0', name, data);
    }
    TarBuilder& directory(const std::string& name, unsigned mode = 0755) {
        return member('5', name, "", "", mode);
    }
    TarBuilder& symlink(const std::string& name, const std::string& target) {
        return member('2', name, "", target);
    }
    TarBuilder& hard_link(const std::string& name, const std::string& target) {
        return member('1', name, "", target);
    }
    std::string finish() const { return text_ + std::string(1024, '\0'); }

  private:
    std::string text_;
};

}  // namespace moat::cri
