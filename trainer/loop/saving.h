// When a run saves, and what becomes of it: the policy around CheckpointSaver.
//
// A save that fails is dropped on all ranks together and told; the run goes on, since the checkpoint before still
// stands. After three in a row, or where the last save of a run fails, the run ends.
#pragma once

#include "trainer/checkpoint/saver.h"
#include "trainer/config/config.h"
#include "trainer/loop/engine.h"
#include "trainer/monitor/metrics.h"
#include "trainer/monitor/progress.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace switchyard {

class Saving {
 public:
  // out: the run's folder. resumed_from: the checkpoint that the run goes on from, or empty; retention spares it.
  // saved_step: of the newest one in the run's folder, which need not be saved again; -1: none.
  Saving(const Group& world, const Config& config, const std::filesystem::path& out,
         const std::filesystem::path& resumed_from, std::int64_t saved_step);

  // Makes ready what saves beside the training need; not collective.
  void reserve(Engine& engine);
  // At a step's boundary, on all ranks. due: the state is to be saved; last: and the run ends here, so the save is
  // waited for. Where a save has come to its end, rank 0's metrics and progress are told (null elsewhere). Throws
  // CollectiveError where the run must end.
  void boundary(const RunState& state, Engine& engine, bool due, bool last, MetricsWriter* metrics, Progress* progress);
  void before_update() { saver_.before_update(); }
  // Other ranks write other tensors than at the last save.
  void writers_changed() { saver_.writers_changed(); }

  // The newest checkpoint that is whole, for messages: empty before the first.
  const std::filesystem::path& last_good() const { return last_good_; }
  // Of the saves so far; 0 before the first.
  double longest_s() const { return longest_s_; }

 private:
  void ended(const std::optional<SaveOutcome>& outcome, bool last, MetricsWriter* metrics, Progress* progress);

  const Group& world_;
  bool beside_;  // there will be saves that the training does not wait for
  CheckpointSaver saver_;
  std::filesystem::path last_good_;
  std::int64_t saved_step_;
  int failures_in_a_row_ = 0;
  double longest_s_ = 0;
};

}  // namespace switchyard
