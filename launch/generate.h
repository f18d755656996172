#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_generate(CLI::App& parent, Run& run);

}  // namespace switchyard
