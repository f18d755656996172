#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_bench_exchange(const Command& parent, Run& run);

}  // namespace switchyard
