#include "trainer/loop/saving.h"

#include "comm/base/log.h"
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "trainer/loop/memory_plan.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr int most_failures_in_a_row = 3;

}  // namespace

Saving::Saving(const Group& world, const Config& config, const std::filesystem::path& out,
               const std::filesystem::path& resumed_from, std::int64_t saved_step)
    : world_(world),
      beside_(saves_beside(config)),
      saver_(world, {.folder = out / "checkpoints",
                     .keep = config.checkpoint.keep,
                     .pin_every = config.checkpoint.pin_every,
                     .resumed_from = resumed_from}),
      last_good_(resumed_from),
      saved_step_(saved_step) {}

void Saving::reserve(Engine& engine) {
  if (beside_) saver_.reserve(engine.state());
}

void Saving::boundary(const RunState& state, Engine& engine, bool due, bool last, MetricsWriter* metrics,
                      Progress* progress) {
  if (saver_.under_way()) ended(saver_.poll(), false, metrics, progress);
  if (due && saved_step_ != state.step) {
    set_progress(state.step, "checkpoint");
    saved_step_ = state.step;
    const bool wait = last || !beside_;
    ended(saver_.begin(state, engine.state(), wait ? SaveMode::AndWait : SaveMode::Beside), false, metrics, progress);
    if (wait) ended(saver_.finish(), last, metrics, progress);
  } else if (last) {
    set_progress(state.step, "checkpoint");
    ended(saver_.finish(), last, metrics, progress);
  }
}

void Saving::ended(const std::optional<SaveOutcome>& outcome, bool last, MetricsWriter* metrics, Progress* progress) {
  if (!outcome) return;
  const std::string before = last_good_.empty() ? "there is no checkpoint yet" : last_good_.string() + " stands";
  if (!outcome->failure.empty()) {
    ++failures_in_a_row_;
    const std::string told =
        fmt::format("step {} was not saved ({} in a row); {}: {}", outcome->step,
                    failures_in_a_row_ == 1 ? "the first failure" : fmt::format("{} failures", failures_in_a_row_),
                    before, outcome->failure);
    if (last || failures_in_a_row_ == most_failures_in_a_row) throw CollectiveError(ErrorKind::Runtime, told);
    if (world_.is_root()) log_warning("{}", told);
    return;
  }
  failures_in_a_row_ = 0;
  last_good_ = outcome->path;
  longest_s_ = std::max(longest_s_, outcome->write_s);
  if (progress != nullptr) {
    progress->note(fmt::format("saved {} in {:.2f} s; the steps stood still for {:.3f} s of it", outcome->path.string(),
                               outcome->write_s, outcome->stall_s));
  }
  if (metrics != nullptr) {
    metrics->amend(
        {.step = outcome->step, .bytes = outcome->bytes, .stall_s = outcome->stall_s, .write_s = outcome->write_s});
  }
}

}  // namespace switchyard
