// What is written of a step, and what is shown of it.
#pragma once

#include "trainer/config/config.h"
#include "trainer/loop/engine.h"
#include "trainer/monitor/metrics.h"
#include "trainer/monitor/progress.h"

#include <optional>
#include <string>

namespace switchyard {

// Why an update is left out, as the metrics and the log have it.
inline constexpr const char* not_finite = "not finite";
inline constexpr const char* loss_spike = "loss spike";

// state: as it is after the step. skip: why its update was left out; empty: it was not. seconds: this rank's.
// exchange: nothing where rows travel between GPUs.
StepMetrics metrics_of(const StepReport& report, const MoeConfig& moe, const RunState& state, const std::string& skip,
                       double seconds, const std::optional<LaneTimes>& exchange);
ProgressStep progress_of(const StepMetrics& metrics);

std::string rebalance_text(std::int64_t step, const RebalanceReport& report);
std::string evaluation_text(const StepMetrics& metrics);

}  // namespace switchyard
