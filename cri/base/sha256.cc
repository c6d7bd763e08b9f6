#include "cri/base/sha256.h"

#include <openssl/evp.h>

#include "kernel/base/check.h"

namespace moat::cri {

struct Sha256::Context {
    EVP_MD_CTX* evp = EVP_MD_CTX_new();
    ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
    CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::string_view data) {
    CHECK(EVP_DigestUpdate(context_->evp, data.data(), data.size()) == 1);
}

std::string Sha256::digest() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    CHECK(EVP_DigestFinal_ex(context_->evp, bytes, &length) == 1);
    static constexpr char kHex[] = "0123456789abcdef";
    std::string text = "sha256:";
    for (unsigned int i = 0; i < length; ++i) {
        text += kHex[bytes[i] >> 4];
        text += kHex[bytes[i] & 15];
    }
    return text;
}

std::string Sha256::of(std::string_view data) {
    Sha256 sum;
    sum.update(data);
    return sum.digest();
}

bool is_digest(std::string_view text) {
    constexpr std::string_view kPrefix = "sha256:";
    if (text.size() != kPrefix.size() + 64 || text.substr(0, kPrefix.size()) != kPrefix) {
        return false;
    }
    return text.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

std::string digest_hex(std::string_view digest) {
    return std::string(digest.substr(digest.find(':') + 1));
}

}  // namespace moat::cri
