#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_generate(const Command& parent, Run& run);

}  // namespace switchyard
