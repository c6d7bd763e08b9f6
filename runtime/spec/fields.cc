#include "runtime/spec/fields.h"

#include <algorithm>

namespace moat::runtime {

namespace {

std::string describe(const Json& found) {
    std::string text = found.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 60) {
        text = text.substr(0, 57) + "...";
    }
    return text;
}

/// Remembers where the parser stumbled; nlohmann only tells that through SAX or an exception.
struct PositionSax : nlohmann::json_sax<Json> {
    size_t position = 0;
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(number_integer_t) override { return true; }
    bool number_unsigned(number_unsigned_t) override { return true; }
    bool number_float(number_float_t, const string_t&) override { return true; }
    bool string(string_t&) override { return true; }
    bool binary(binary_t&) override { return true; }
    bool start_object(size_t) override { return true; }
    bool key(string_t&) override { return true; }
    bool end_object() override { return true; }
    bool start_array(size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
        position = at;
        return false;
    }
};

}  // namespace

Result<Json> parse_json(const std::string& text, const std::string& file) {
    Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) {
        PositionSax sax;
        Json::sax_parse(text, &sax);
        const size_t at = std::min(sax.position, text.size());
        const auto line = std::count(text.begin(), text.begin() + at, '\n') + 1;
        return Error(EINVAL, file + ": not valid JSON: line " + std::to_string(line) + ", byte " +
                                 std::to_string(at));
    }
    return json;
}

std::string Fields::join(const std::string& key) const {
    return path_.empty() ? key : key.empty() ? path_ : path_ + "." + key;
}

Error Fields::error(const std::string& key, const std::string& expected, const Json& found) const {
    return Error(EINVAL, error(key, expected).message() + ", found " + describe(found));
}

Error Fields::error(const std::string& key, const std::string& expected) const {
    const std::string place = join(key);
    return Error(EINVAL, file_ + (place.empty() ? "" : ": " + place) + ": expected " + expected);
}

const Json* Fields::find(const char* key) const {
    if (!json_.is_object()) {
        return nullptr;
    }
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
}

Status Fields::read(const char* key, std::string& out) const {
    if (const Json* v = find(key)) {
        const auto* text = v->get_ptr<const std::string*>();
        if (text == nullptr) {
            return error(key, "a string", *v);
        }
        if (text->find('\0') != std::string::npos) {
            return error(key, "a string without NUL bytes", *v);
        }
        out = *text;
    }
    return {};
}

Status Fields::read(const char* key, bool& out) const {
    if (const Json* v = find(key)) {
        const auto* flag = v->get_ptr<const Json::boolean_t*>();
        if (flag == nullptr) {
            return error(key, "true or false", *v);
        }
        out = *flag;
    }
    return {};
}

Status Fields::read(const char* key, std::vector<std::string>& out) const {
    const Json* v = find(key);
    if (v == nullptr) {
        return {};
    }
    if (!v->is_array()) {
        return error(key, "an array of strings", *v);
    }
    for (size_t i = 0; i < v->size(); i++) {
        const auto* text = (*v)[i].get_ptr<const std::string*>();
        if (text == nullptr || text->find('\0') != std::string::npos) {
            return error(std::string(key) + "[" + std::to_string(i) + "]",
                         "a string without NUL bytes", (*v)[i]);
        }
        out.push_back(*text);
    }
    return {};
}

Status Fields::read(const char* key, std::map<std::string, std::string>& out) const {
    const Json* v = find(key);
    if (v == nullptr) {
        return {};
    }
    if (!v->is_object()) {
        return error(key, "an object of strings", *v);
    }
    for (const auto& [name, value] : v->items()) {
        const auto* text = value.get_ptr<const std::string*>();
        if (text == nullptr) {
            return error(std::string(key) + "." + name, "a string", value);
        }
        out[name] = *text;
    }
    return {};
}

}  // namespace moat::runtime
