#pragma once

namespace moat::runtime::cli {

/// `moat image ...` is moatd's, which knows images: becomes the moatd beside this program, else
/// that of PATH. Returns the exit status if that failed. `argv` starts with "image".
int run_image_command(char** argv);

}  // namespace moat::runtime::cli
