#include "cri/handlers/handlers.h"

#include "runtime/runtime.h"

namespace moat::cri {

Handler::Handler(std::string handler_name, std::unique_ptr<runtime::Runtime> handler_runtime)
    : name(std::move(handler_name)), runtime(std::move(handler_runtime)) {}
Handler::~Handler() = default;

Handlers::Handlers() = default;
Handlers::~Handlers() = default;

Handler& Handlers::add(std::string name, std::unique_ptr<runtime::Runtime> runtime) {
    all_.push_back(std::make_unique<Handler>(std::move(name), std::move(runtime)));
    if (default_ == nullptr) {
        default_ = all_.back().get();
    }
    return *all_.back();
}

Status Handlers::set_default(const std::string& name) {
    default_ = TRY(choose(name));
    return {};
}

Result<Handler*> Handlers::find(const std::string& name) const {
    for (const auto& handler : all_) {
        if (handler->name == name) {
            return handler.get();
        }
    }
    return not_found("handler \"" + name + "\": this moatd has none of that name");
}

Result<Handler*> Handlers::choose(const std::string& requested) const {
    Handler* handler = default_;
    if (!requested.empty()) {
        const auto found = find(requested);
        if (!found.ok()) {
            std::string names = "\"\"";
            for (const auto& one : all_) {
                names += (one == all_.back() ? " and \"" : ", \"") + one->name + "\"";
            }
            return invalid_argument("runtime_handler: \"" + requested +
                                    "\" is unknown; there are " + names);
        }
        handler = *found;
    }
    if (!handler->unavailable.empty()) {
        return wrong_state("runtime_handler: \"" + handler->name + "\": " + handler->unavailable);
    }
    return handler;
}

}  // namespace moat::cri
