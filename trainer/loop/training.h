// The steps of a run, one after the other: between two of them the ranks tell each other how they fared, and what is
// due is done: evaluation, metrics, checkpoints, the end.
#pragma once

#include "comm/group/group.h"
#include "comm/group/news.h"
#include "comm/group/pace.h"
#include "comm/group/watchdog.h"
#include "data/loader/loader.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/engine.h"
#include "trainer/loop/layout.h"
#include "trainer/loop/run.h"
#include "trainer/loop/run_data.h"
#include "trainer/loop/saving.h"
#include "trainer/loop/spike_guard.h"
#include "trainer/loop/stopping.h"
#include "trainer/monitor/metrics.h"
#include "trainer/monitor/progress.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace switchyard {

class Training {
 public:
  // All that is given must outlive it. Collective, as all that follows.
  Training(const Group& world, const Config& config, const RunOptions& options, const RunData& data, Layout& layout,
           Watchdog& watchdog, Stopping& stopping);

  void restore(const CheckpointInfo& checkpoint);
  RunOutcome train();

 private:
  // Between two steps: the ranks tell each other how the last one went and whether anyone is asked to stop, which is
  // the answer. Collective, and alike on all ranks.
  bool share_last_step(RankNews mine, bool time_counts = true);
  // Before there has been a save it is taken to go at 100 MB/s: weights and two moments.
  double expected_save_s() const;
  void one_step(StepMetrics& metrics, RankNews& mine);
  std::int64_t bad_in_a_row() const { return state_.not_finite_in_a_row + state_.spikes_in_a_row; }
  // Counts and tells an update that was left out; ends the run where there have been too many.
  void leave_out(const std::string& why, double loss);

  const Group& world_;
  Watchdog& watchdog_;
  Stopping& stopping_;
  const Config& config_;
  const RunOptions& options_;
  const RunData& data_;
  Engine engine_;
  Loader loader_;
  SpikeGuard guard_;
  std::string why_stopped_;
  std::optional<Progress> progress_;  // rank 0's
  Pace pace_;
  double longest_evaluation_s_ = 0;
  RunState state_;
  std::filesystem::path resumed_from_;
  std::optional<Saving> saving_;  // last: a save under way reads what stands above
};

}  // namespace switchyard
