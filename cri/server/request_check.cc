#include "cri/server/request_check.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <vector>

#include "cri/base/texts.h"

namespace moat::cri {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

/// Where we are, written down only for an error.
struct Place {
    const Place* above;
    const FieldDescriptor* field;
    int index;  ///< -1: not of a list

    std::string text() const {
        std::string own = field->name();
        if (index >= 0) {
            own += "[" + std::to_string(index) + "]";
        }
        return above == nullptr ? own : above->text() + "." + own;
    }
};

Status check_text(const std::string& text, const Place& place) {
    if (place.field->type() == FieldDescriptor::TYPE_STRING &&
        text.find('\0') != std::string::npos) {
        return invalid_argument(place.text() + ": holds a NUL byte");
    }
    if (text.size() > kLongestText) {
        return invalid_argument(place.text() + ": longer than " + std::to_string(kLongestText) +
                                " bytes: " + in_quotes(text));
    }
    return {};
}

/// Recursion is as deep as the CRI's messages, which do not contain themselves.
Status check_message(const Message& message, const Place* above) {
    const Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
        const bool list = field->is_repeated();
        const int count = list ? reflection.FieldSize(message, field) : 1;
        Place place{above, field, list ? 0 : -1};
        if (count > kLongestList) {
            place.index = -1;
            return invalid_argument(place.text() + ": " + std::to_string(count) +
                                    " entries, more than " + std::to_string(kLongestList));
        }
        for (int i = 0; i < count; ++i) {
            place.index = list ? i : -1;
            std::string scratch;
            switch (field->cpp_type()) {
                case FieldDescriptor::CPPTYPE_STRING:
                    TRY(check_text(
                        list ? reflection.GetRepeatedStringReference(message, field, i, &scratch)
                             : reflection.GetStringReference(message, field, &scratch),
                        place));
                    break;
                case FieldDescriptor::CPPTYPE_ENUM: {
                    const int number = list ? reflection.GetRepeatedEnumValue(message, field, i)
                                            : reflection.GetEnumValue(message, field);
                    if (field->enum_type()->FindValueByNumber(number) == nullptr) {
                        return invalid_argument(place.text() + ": " + std::to_string(number) +
                                                ": unknown");
                    }
                    break;
                }
                case FieldDescriptor::CPPTYPE_MESSAGE:
                    TRY(check_message(list ? reflection.GetRepeatedMessage(message, field, i)
                                           : reflection.GetMessage(message, field),
                                      &place));
                    break;
                default:
                    break;
            }
        }
    }
    return {};
}

}  // namespace

Status check_request(const Message& request) {
    for (const char* name : {"pod_sandbox_id", "container_id"}) {
        const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName(name);
        if (field != nullptr && request.GetReflection()->GetString(request, field).empty()) {
            return invalid_argument(std::string(name) + ": missing");
        }
    }
    return check_message(request, nullptr);
}

}  // namespace moat::cri
