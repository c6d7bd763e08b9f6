#include "cri/base/base64.h"

#include <openssl/evp.h>

namespace moat::cri {

std::string base64_encode(const std::string& plain) {
    std::string encoded(4 * ((plain.size() + 2) / 3) + 1, '\0');
    const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded.data()),
                                       reinterpret_cast<const unsigned char*>(plain.data()),
                                       static_cast<int>(plain.size()));
    encoded.resize(static_cast<size_t>(length));
    return encoded;
}

Result<std::string> base64_decode(const std::string& text) {
    std::string plain(text.size() / 4 * 3 + 1, '\0');
    const int length = text.size() % 4 != 0
                           ? -1
                           : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(plain.data()),
                                             reinterpret_cast<const unsigned char*>(text.data()),
                                             static_cast<int>(text.size()));
    if (length < 0) {
        return invalid_argument("not base64");
    }
    // EVP_DecodeBlock counts the padding as zero bytes.
    size_t padding = 0;
    while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') {
        ++padding;
    }
    plain.resize(static_cast<size_t>(length) - padding);
    return plain;
}

}  // namespace moat::cri
