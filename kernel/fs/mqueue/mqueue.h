#pragma once

namespace moat::kernel {

/// Registers "mqueue", which can be mounted (mq_overview(7)) and is empty: mq_open(2) is not built.
/// At boot.
void register_mqueue();

}  // namespace moat::kernel
