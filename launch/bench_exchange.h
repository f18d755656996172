#pragma once

#include "launch/commands.h"

namespace switchyard {

void add_bench_exchange(CLI::App& parent, Run& run);

}  // namespace switchyard
