#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "cri/base/settings.h"

namespace moat::cri {

/// `moatd image ...`, which `moat image ...` calls: the image store of --root from the command
/// line, also beside a running moatd.
class ImageCommands {
  public:
    explicit ImageCommands(CLI::App& app);
    bool parsed() const { return image_->parsed(); }
    /// Returns the exit status; errors go to stderr.
    int run(const Settings& settings);

  private:
    CLI::App* image_;
    CLI::App* load_;
    CLI::App* save_;
    CLI::App* list_;
    CLI::App* pull_;
    CLI::App* tag_;
    CLI::App* remove_;
    CLI::App* prune_;
    std::string archive_;
    std::string name_;
    std::string user_;
    std::string target_;
    std::vector<std::string> names_;
};

}  // namespace moat::cri
