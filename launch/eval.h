#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_eval(CLI::App& parent, Run& run);

}  // namespace switchyard
