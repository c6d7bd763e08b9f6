#pragma once

// Reading typed fields out of JSON with errors that name the place: the one way in which runtime/
// reads JSON that people or other programs wrote.

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/error.h"

namespace moat::runtime {

using Json = nlohmann::json;

/// One object at a known place of a file. Missing and null fields leave the default.
class Fields {
  public:
    /// `place`: "config.json: process", or the file's name for the outermost object.
    Fields(const Json& json, std::string place, std::string path = "")
        : json_(json), file_(std::move(place)), path_(std::move(path)) {}

    const Json& json() const { return json_; }
    Status expect_object() const {
        return json_.is_object() ? Status() : error("", "an object", json_);
    }
    bool has(const char* key) const { return find(key) != nullptr; }

    Status read(const char* key, std::string& out) const;
    Status read(const char* key, bool& out) const;
    Status read(const char* key, std::vector<std::string>& out) const;
    Status read(const char* key, std::map<std::string, std::string>& out) const;
    template <typename I>
    requires(std::is_integral_v<I> && !std::is_same_v<I, bool>) Status read(const char* key, I& out)
    const {
        const Json* v = find(key);
        return v == nullptr ? Status() : read_integer(key, *v, out);
    }
    template <typename I>
    requires std::is_integral_v<I> Status read(const char* key, std::vector<I>& out)
    const {
        const Json* v = find(key);
        if (v == nullptr) {
            return {};
        }
        if (!v->is_array()) {
            return error(key, "an array of numbers", *v);
        }
        for (size_t i = 0; i < v->size(); i++) {
            I one{};
            TRY(read_integer(std::string(key) + "[" + std::to_string(i) + "]", (*v)[i], one));
            out.push_back(one);
        }
        return {};
    }
    template <typename T>
    requires(std::is_same_v<T, std::string> || std::is_integral_v<T>) Status
        read(const char* key, std::optional<T>& out)
    const {
        if (find(key) == nullptr) {
            return {};
        }
        T value{};
        TRY(read(key, value));
        out = value;
        return {};
    }
    /// Calls `f(Fields)` for the object under `key`, if there is one.
    template <typename F>
    Status object(const char* key, F f) const {
        const Json* v = find(key);
        if (v == nullptr) {
            return {};
        }
        Fields below(*v, file_, join(key));
        TRY(below.expect_object());
        return f(below);
    }
    /// Calls `f(Fields)` for each object of the array under `key`.
    template <typename F>
    Status objects(const char* key, F f) const {
        const Json* v = find(key);
        if (v == nullptr) {
            return {};
        }
        if (!v->is_array()) {
            return error(key, "an array of objects", *v);
        }
        for (size_t i = 0; i < v->size(); i++) {
            Fields below((*v)[i], file_, join(std::string(key) + "[" + std::to_string(i) + "]"));
            TRY(below.expect_object());
            TRY(f(below));
        }
        return {};
    }
    /// "config.json: process.cwd: expected an absolute path, found \"x\"".
    Error error(const std::string& key, const std::string& expected, const Json& found) const;
    Error error(const std::string& key, const std::string& expected) const;
    std::string join(const std::string& key) const;

  private:
    const Json* find(const char* key) const;
    template <typename I>
    Status read_integer(const std::string& key, const Json& v, I& out) const {
        if (const auto* u = v.get_ptr<const Json::number_unsigned_t*>()) {
            if (std::in_range<I>(*u)) {
                out = static_cast<I>(*u);
                return {};
            }
        } else if (const auto* i = v.get_ptr<const Json::number_integer_t*>()) {
            if (std::in_range<I>(*i)) {
                out = static_cast<I>(*i);
                return {};
            }
        }
        return error(key,
                     "an integer from " + std::to_string(std::numeric_limits<I>::min()) + " to " +
                         std::to_string(std::numeric_limits<I>::max()),
                     v);
    }

    const Json& json_;
    std::string file_;
    std::string path_;
};

/// Parses `text`; EINVAL with the file, the line and the byte where it is not JSON.
Result<Json> parse_json(const std::string& text, const std::string& file);

}  // namespace moat::runtime
