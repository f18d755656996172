// Training steps of one config on random tokens, timed: what `bench step` compares.
#pragma once

#include "comm/base/timers.h"
#include "trainer/loop/engine.h"
#include "trainer/loop/layout.h"

#include <cstdint>
#include <vector>

namespace switchyard {

class StepCandidate {
 public:
  StepCandidate(const Config& config, const Group& world);

  // One step, with a clock that starts and ends with all ranks together, their devices' work done. Collective.
  void step(bool counted);

  const Config& config() const { return config_; }
  Device& device() { return device_; }
  Bytes optimizer_size() const { return engine_.optimizer_size(); }
  Bytes activations_peak() { return engine_.model().activations_peak(); }
  std::int64_t step_tokens() const { return config_.train.global_batch * config_.model.seq_len; }
  // Of the steps that were counted.
  double median_seconds() const;
  double total_seconds() const;
  double tokens_per_second() const { return static_cast<double>(step_tokens()) / median_seconds(); }
  double share(Phase phase) const { return times_.of(phase) / times_.total(); }
  double rate(Phase phase) const;  // GFLOP/s while in it
  double step_rate() const;        // GFLOP/s of products and attention over the whole time of the steps

 private:
  Config config_;
  Device& device_;
  Layout layout_;
  Engine engine_;
  std::int64_t step_ = 0;
  std::vector<double> seconds_;
  PhaseTimes times_;
};

}  // namespace switchyard
