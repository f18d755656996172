#include "comm/group/pace.h"

#include <algorithm>
#include <utility>

namespace switchyard {

void Pace::add(double seconds) {
  if (!std::exchange(first_is_over_, true)) return;
  if (recent_.size() < most) {
    recent_.push_back(seconds);
    return;
  }
  recent_[next_] = seconds;
  next_ = (next_ + 1) % most;
}

double Pace::usual() const {
  if (recent_.empty()) return 0;
  std::vector<double> sorted = recent_;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double Pace::longest() const {
  return recent_.empty() ? 0 : *std::max_element(recent_.begin(), recent_.end());
}

}  // namespace switchyard
