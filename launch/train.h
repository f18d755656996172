#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_train(CLI::App& parent, Run& run);

}  // namespace switchyard
