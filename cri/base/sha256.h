#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace moat::cri {

/// A running SHA-256 in the form image digests have: "sha256:" and 64 hex digits.
class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(Sha256&&) noexcept;
    Sha256& operator=(Sha256&&) noexcept;

    void update(std::string_view data);
    /// Ends the sum; the object is of no use afterwards.
    std::string digest();

    static std::string of(std::string_view data);

  private:
    struct Context;
    std::unique_ptr<Context> context_;
};

/// Whether `text` is "sha256:" and 64 lower-case hex digits, the only kind that is accepted.
bool is_digest(std::string_view text);
/// The hex digits of a digest, which is_digest() has accepted.
std::string digest_hex(std::string_view digest);

}  // namespace moat::cri
