// switchyard bench: measurements of this machine, a subcommand each.
#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_bench(CLI::App& parent, Run& run);

}  // namespace switchyard
