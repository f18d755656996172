// The learning rate over steps: linear warm-up, then half a cosine down to min_lr_ratio of the peak.
#pragma once

#include "trainer/config/config.h"

#include <cstdint>

namespace switchyard {

// step: from 0. The first step has lr / warmup_steps, not 0; the last has lr * min_lr_ratio.
double learning_rate(const TrainConfig& train, std::int64_t step);

}  // namespace switchyard
