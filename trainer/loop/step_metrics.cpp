#include "trainer/loop/step_metrics.h"

#include "trainer/monitor/memory.h"

#include <algorithm>
#include <limits>

#include <fmt/core.h>

namespace switchyard {

StepMetrics metrics_of(const StepReport& report, const MoeConfig& moe, const RunState& state, const std::string& skip,
                       double seconds, const std::optional<LaneTimes>& exchange) {
  StepMetrics metrics;
  metrics.step = state.step;
  metrics.tokens = state.tokens;
  metrics.loss = report.loss;
  metrics.aux_loss = report.aux_loss;
  metrics.z_loss = report.z_loss;
  metrics.lr = report.lr;
  // Partials that were not finite have been left out of the sums, so that the norm of the rest says nothing.
  metrics.grad_norm = skip == not_finite ? std::numeric_limits<double>::quiet_NaN() : report.grad_norm;
  metrics.tokens_per_s = static_cast<double>(report.tokens) / seconds;
  metrics.step_time_s = seconds;
  metrics.exchange_s.reset();
  metrics.exchange_hidden.reset();
  if (exchange) {
    metrics.exchange_s = exchange->busy;
    metrics.exchange_hidden = exchange->busy > 0 ? exchange->hidden() / exchange->busy : 0;
  }
  metrics.skipped = state.skipped;
  metrics.skip = skip;
  for (const LayerLoad& layer : report.layers) {
    metrics.slots_kept += layer.kept;
    metrics.slots_dropped += layer.dropped;
    metrics.layers.push_back({.layer = layer.layer,
                              .load_max_over_mean = layer.load_max_over_mean(),
                              .max_violation = layer.max_violation,
                              .entropy = layer.entropy,
                              .drop_rate = layer.drop_rate(),
                              .dead_experts = layer.dead_experts()});
    if (moe.rebalance_every > 0 || moe.replicas > 0)
      metrics.layers.back().rank_load_max_over_mean = layer.rank_load_max_over_mean;
  }
  if (report.rebalance) metrics.moved_experts = report.rebalance->moved;
  metrics.slots = metrics.slots_kept + metrics.slots_dropped;
  if (metrics.slots > 0)
    metrics.drop_rate = static_cast<double>(metrics.slots_dropped) / static_cast<double>(metrics.slots);
  return metrics;
}

ProgressStep progress_of(const StepMetrics& metrics) {
  ProgressStep progress;
  progress.step = metrics.step;
  progress.loss = metrics.loss;
  progress.lr = metrics.lr;
  progress.grad_norm = metrics.grad_norm;
  progress.tokens_per_s = metrics.tokens_per_s;
  for (const LayerMetrics& layer : metrics.layers) {
    progress.load_max_over_mean = std::max(progress.load_max_over_mean, layer.load_max_over_mean);
  }
  progress.drop_rate = metrics.drop_rate;
  progress.step_time_s = metrics.step_time_s;
  progress.skip = metrics.skip;
  return progress;
}

std::string rebalance_text(std::int64_t step, const RebalanceReport& report) {
  if (report.moved == 0) {
    return fmt::format("step {}: all experts stay; the busiest rank has {:.2f} times the mean work", step,
                       report.before);
  }
  return fmt::format(
      "step {}: {} experts moved in {} layers; the busiest rank's work over the mean {:.2f} -> {:.2f}; {} in {:.2f} "
      "s",
      step, report.moved, report.layers, report.before, report.after, size_text(report.bytes), report.seconds);
}

std::string evaluation_text(const StepMetrics& metrics) {
  std::string text = fmt::format("step {}: validation loss {:.4f}", metrics.step, *metrics.valid_loss);
  if (metrics.valid_bits_per_byte) text += fmt::format(", {:.4f} bits per byte", *metrics.valid_bits_per_byte);
  return text;
}

}  // namespace switchyard
