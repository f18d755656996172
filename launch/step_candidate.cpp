#include "launch/step_candidate.h"

#include "comm/group/environment.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace switchyard {

using Clock = std::chrono::steady_clock;

StepCandidate::StepCandidate(const Config& config, const Group& world)
    : config_(config),
      device_(open_device(config.device, launched_as().local_rank)),
      layout_(world, config),
      engine_(config, layout_, device_) {}

void StepCandidate::step(bool counted) {
  layout_.world().barrier();
  take_phase_times();
  const auto start = Clock::now();
  const Random random(config_.train.seed, "bench tokens");
  const auto read = [&](std::int64_t sample, std::span<std::int32_t> tokens) {
    const auto first = static_cast<std::uint64_t>(sample) * tokens.size();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(random.bits(first + i) % static_cast<std::uint64_t>(config_.model.vocab));
    }
  };
  engine_.step(step_, step_, step_ * config_.train.global_batch, read);
  device_.stream().synchronize();
  layout_.world().barrier();
  ++step_;
  const PhaseTimes times = take_phase_times();
  if (!counted) return;
  seconds_.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  for (int p = 0; p < phase_count; ++p) {
    times_.seconds[usize(p)] += times.seconds[usize(p)];
    times_.flops[usize(p)] += times.flops[usize(p)];
  }
}

double StepCandidate::median_seconds() const {
  std::vector<double> sorted = seconds_;
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

double StepCandidate::total_seconds() const {
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

double StepCandidate::rate(Phase phase) const {
  return times_.flops_of(phase) / std::max(times_.of(phase), 1e-12) * 1e-9;
}

double StepCandidate::step_rate() const {
  return (times_.flops_of(Phase::Gemm) + times_.flops_of(Phase::Attention)) / total_seconds() * 1e-9;
}

}  // namespace switchyard
