// Which rank held up a step that took much longer than usual.
#pragma once

#include "comm/group/news.h"

#include <cstdint>
#include <span>
#include <string>

namespace switchyard {

// "step 12 took 2.1 s (usual 0.05 s): rank 2 on north did not run for 2.0 s". Empty where nothing was out of the
// ordinary: a step of up to 3 times the usual time and a second. usual_s: 0 where it is not known yet. hosts: by rank.
std::string slow_step_text(std::int64_t step, const News& news, double usual_s, std::span<const std::string> hosts);

}  // namespace switchyard
