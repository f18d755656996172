#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_train(const Command& parent, Run& run);

}  // namespace switchyard
