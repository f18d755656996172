#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_eval(const Command& parent, Run& run);

}  // namespace switchyard
