// Steps whose loss jumps: a batch of damaged text, or a run that begins to diverge. Such a step's update is left out.
//
// A loss is a spike where it lies more than `zscore` standard deviations above the mean of the last `window` losses
// that were accepted; before there are so many, nothing is. The deviation is taken to be 1 % of the mean at least, so
// that a flat curve does not make every ripple a spike. Losses are the same bits on every rank and layout, and so is
// the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace switchyard {

class SpikeGuard {
 public:
  // zscore 0: nothing is a spike, and nothing is remembered. window: at least 2.
  SpikeGuard(double zscore, std::int64_t window);

  bool is_spike(double loss, std::span<const double> accepted) const;
  // How many deviations above the mean; nothing while too few are known.
  std::optional<double> score(double loss, std::span<const double> accepted) const;
  // After an update: `accepted`, oldest first, is part of the run's state (law 2).
  void remember(double loss, std::vector<double>& accepted) const;

 private:
  double zscore_;
  std::size_t window_;
};

}  // namespace switchyard
