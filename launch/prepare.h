// switchyard prepare: text to token shards (data/prepare).
#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_prepare(const Command& parent, Run& run);

}  // namespace switchyard
