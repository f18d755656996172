// bench step on a GPU: tokens/s and model FLOPs utilisation of whole steps, and the time of each kind of kernel.
#pragma once

#include "comm/base/numerics.h"
#include "comm/group/group.h"
#include "trainer/config/config.h"

#include <cstdint>
#include <vector>

namespace switchyard {

// Prints on rank 0 (with json: a line with one JSON object at the end) and returns the exit code. Collective.
int bench_step_on_device(Config config, const std::vector<Numerics>& wanted, std::int64_t steps, bool json,
                         const Group& world);

}  // namespace switchyard
