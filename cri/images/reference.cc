#include "cri/images/reference.h"

#include <algorithm>
#include <cctype>

#include "cri/base/sha256.h"

namespace moat::cri {

namespace {

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

/// [a-z0-9]+ joined by one of ".", "_", "__" or any number of "-".
bool valid_component(std::string_view text) {
    if (text.empty() || !is_lower_alnum(text.front()) || !is_lower_alnum(text.back())) {
        return false;
    }
    for (size_t i = 0; i < text.size();) {
        if (is_lower_alnum(text[i])) {
            ++i;
            continue;
        }
        const size_t end = std::min(text.find_first_not_of(text[i], i), text.size());
        const size_t run = end - i;
        const bool allowed =
            text[i] == '-' || (text[i] == '.' && run == 1) || (text[i] == '_' && run <= 2);
        if (!allowed || end == text.size() || !is_lower_alnum(text[end])) {
            return false;
        }
        i = end;
    }
    return true;
}

bool valid_tag(std::string_view text) {
    const auto word = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    };
    return !text.empty() && text.size() <= 128 && word(text.front()) &&
           std::all_of(text.begin(), text.end(),
                       [&](char c) { return word(c) || c == '.' || c == '-'; });
}

bool valid_host(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' ||
               c == ':' || c == '[' || c == ']';
    });
}

}  // namespace

Result<Reference> parse_reference(const std::string& text) {
    const auto wrong = [&](const std::string& why) {
        return invalid_argument("image reference \"" + text + "\": " + why);
    };
    Reference reference;
    std::string rest = text;
    if (const size_t at = rest.find('@'); at != std::string::npos) {
        reference.digest = rest.substr(at + 1);
        rest.resize(at);
        if (!is_digest(reference.digest)) {
            return wrong("the digest is not sha256 and 64 hex digits");
        }
    }
    // A colon behind the last slash is the tag's; one before it, a port's.
    const size_t slash = rest.rfind('/');
    if (const size_t colon = rest.find(':', slash == std::string::npos ? 0 : slash);
        colon != std::string::npos) {
        reference.tag = rest.substr(colon + 1);
        rest.resize(colon);
        if (!valid_tag(reference.tag)) {
            return wrong("the tag is not up to 128 letters, digits, \"_\", \".\" and \"-\"");
        }
    }
    const size_t first = rest.find('/');
    const std::string head = rest.substr(0, first);
    if (first != std::string::npos &&
        (head.find_first_of(".:[") != std::string::npos || head == "localhost")) {
        reference.host = head;
        reference.path = rest.substr(first + 1);
    } else {
        reference.host = "docker.io";
        reference.path = rest;
    }
    if (reference.host == "index.docker.io") {
        reference.host = "docker.io";
    }
    if (reference.host == "docker.io" && reference.path.find('/') == std::string::npos) {
        reference.path = "library/" + reference.path;
    }
    if (!valid_host(reference.host)) {
        return wrong("the host is not one");
    }
    if (reference.path.size() > 255) {
        return wrong("the repository is longer than 255 characters");
    }
    std::string_view path = reference.path;
    for (bool last = false; !last;) {
        const size_t end = path.find('/');
        last = end == std::string_view::npos;
        if (!valid_component(path.substr(0, end))) {
            return wrong(
                "the repository has a component that is not of lower-case letters and digits");
        }
        path.remove_prefix(last ? path.size() : end + 1);
    }
    if (reference.tag.empty() && reference.digest.empty()) {
        reference.tag = "latest";
    }
    return reference;
}

}  // namespace moat::cri
