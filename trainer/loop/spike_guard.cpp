#include "trainer/loop/spike_guard.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

constexpr double least_deviation = 0.01;  // of the mean

}  // namespace

SpikeGuard::SpikeGuard(double zscore, std::int64_t window) : zscore_(zscore), window_(usize(window)) {
  require(window >= 2, "a window of {} losses has no deviation", window);
}

std::optional<double> SpikeGuard::score(double loss, std::span<const double> accepted) const {
  if (zscore_ <= 0 || accepted.size() < window_) return std::nullopt;
  const std::span<const double> last = accepted.last(window_);
  double sum = 0;
  for (const double one : last) sum += one;
  const double mean = sum / static_cast<double>(window_);
  double squares = 0;
  for (const double one : last) squares += (one - mean) * (one - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(window_));
  return (loss - mean) / std::max({deviation, least_deviation * std::fabs(mean), 1e-12});
}

bool SpikeGuard::is_spike(double loss, std::span<const double> accepted) const {
  const std::optional<double> z = score(loss, accepted);
  return z && *z > zscore_;
}

void SpikeGuard::remember(double loss, std::vector<double>& accepted) const {
  if (zscore_ <= 0) {
    accepted.clear();
    return;
  }
  accepted.push_back(loss);
  if (accepted.size() > window_)
    accepted.erase(accepted.begin(), accepted.end() - static_cast<std::ptrdiff_t>(window_));
}

}  // namespace switchyard
