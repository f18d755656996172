#include "trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace switchyard {

double learning_rate(const TrainConfig& train, std::int64_t step) {
  if (step < train.warmup_steps) {
    return train.lr * static_cast<double>(step + 1) / static_cast<double>(train.warmup_steps);
  }
  const std::int64_t span = std::max<std::int64_t>(1, train.steps - 1 - train.warmup_steps);
  const double done = std::min(1.0, static_cast<double>(step - train.warmup_steps) / static_cast<double>(span));
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return train.lr * (train.min_lr_ratio + (1 - train.min_lr_ratio) * cosine);
}

}  // namespace switchyard
