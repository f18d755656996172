// switchyard bench: measurements of this machine, a subcommand each.
#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_bench(const Command& parent, Run& run);

}  // namespace switchyard
