#include "trainer/loop/training.h"

#include "comm/base/log.h"
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "comm/group/slow_rank.h"
#include "comm/transport/waiting.h"
#include "data/loader/durable.h"
#include "trainer/config/schema.h"
#include "trainer/loop/evaluation.h"
#include "trainer/loop/restore.h"
#include "trainer/loop/step_metrics.h"
#include "trainer/model/catalogue.h"
#include "trainer/monitor/memory.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Is `step` one at which something happens that is due every so many steps, and at the end?
bool is_due(std::int64_t every, std::int64_t step, std::int64_t last) {
  return step == last || (every > 0 && step % every == 0);
}

}  // namespace

Training::Training(const Group& world, const Config& config, const RunOptions& options, const RunData& data,
                   Layout& layout, Watchdog& watchdog, Stopping& stopping)
    : world_(world),
      watchdog_(watchdog),
      stopping_(stopping),
      config_(config),
      options_(options),
      data_(data),
      engine_(config, layout, open_device(config.device, launched_as().local_rank)),
      loader_(data.train, config.model.seq_len, config.train.seed),
      guard_(config.train.spike_zscore, config.train.spike_window) {
  state_.seed = config.train.seed;
  state_.numerics = config.train.numerics;
  state_.config_toml = to_toml(config);
  state_.run_id = fmt::format("{:016x}", static_cast<std::uint64_t>(Clock::now().time_since_epoch().count()) ^
                                             (static_cast<std::uint64_t>(::getpid()) << 48U));
  state_.run_id = world.broadcast(state_.run_id, Rank(0));
}

void Training::restore(const CheckpointInfo& checkpoint) {
  load_state(engine_, world_, checkpoint, LoadWhat::WeightsAndOptimizer);
  const std::string config_toml = state_.config_toml;
  const std::string run_id = options_.resume == Resume::Path ? state_.run_id : checkpoint.state.run_id;
  state_ = checkpoint.state;
  state_.numerics = config_.train.numerics;
  state_.config_toml = config_toml;
  state_.run_id = run_id;
  resumed_from_ = checkpoint.path;
}

RunOutcome Training::train() {
  const std::int64_t steps = config_.train.steps;
  std::optional<MetricsWriter> metrics_file;
  collectively(world_, "preparing the run's folder", [&] {
    if (!world_.is_root()) return;
    fs::create_directories(options_.out);
    write_durably(options_.out / "config.toml", state_.config_toml);
    if (fs::exists(config_.data.tokenizer)) keep_tokenizer(config_.data.tokenizer, options_.out);
    metrics_file.emplace(options_.out / "metrics.jsonl", state_.step);
    progress_.emplace(stderr, Progress::suited_to(stderr, steps, state_.step, config_.log.every));
  });
  // What it goes on from lies in this folder already, or is another run's.
  const bool is_saved = !resumed_from_.empty() && options_.resume != Resume::Path;
  saving_.emplace(world_, config_, options_.out, resumed_from_, is_saved ? state_.step : -1);
  saving_->reserve(engine_);
  MetricsWriter* const metrics_or_none = metrics_file ? &*metrics_file : nullptr;
  Progress* const progress_or_none = progress_ ? &*progress_ : nullptr;
  std::int64_t last = std::min(steps, options_.stop_after.value_or(steps));
  // Asked while it was being made ready, a run that has a checkpoint of where it stands leaves at once; another one
  // does its first step, so that there is something to go on from.
  // A time limit too short for anything asks after a step only: each start then gets on by one.
  if (share_last_step({}, /*time_counts=*/false) && is_saved) last = state_.step;
  // What lies in another run's folder only is saved here too, so that the same command goes on from here.
  if (state_.step >= last && !is_saved) {
    saving_->boundary(state_, engine_, /*due=*/true, /*last=*/true, metrics_or_none, progress_or_none);
  }
  while (state_.step < last) {
    StepMetrics metrics;
    RankNews mine;
    one_step(metrics, mine);
    const std::int64_t step = state_.step;
    if (share_last_step(mine)) last = step;
    watchdog_.begin_long_task();
    if (is_due(config_.log.digest_every, step, last) || is_due(config_.checkpoint.every, step, last)) {
      state_.digest = engine_.digest();
      metrics.digest = state_.digest;
    }
    if (data_.valid && is_due(config_.train.eval_every, step, steps)) {
      set_progress(step, "evaluation");
      const auto start = Clock::now();
      const Evaluation evaluation = evaluate(engine_, *data_.valid, config_.train.eval_sequences);
      metrics.valid_loss = evaluation.loss;
      metrics.valid_bits_per_byte = evaluation.bits_per_byte;
      engine_.take_exchange_times();  // the evaluation's, which belongs to no step
      longest_evaluation_s_ = std::max(longest_evaluation_s_, seconds_since(start));
    }
    collectively(world_, "writing metrics", [&] {
      if (metrics_file) metrics_file->write(metrics);
    });
    if (progress_) {
      progress_->step(progress_of(metrics));
      if (metrics.valid_loss) progress_->note(evaluation_text(metrics));
    }
    // While updates are being left out the checkpoint of before stays the newest: the run may yet be found diverged.
    const bool due = is_due(config_.checkpoint.every, step, last) && (step == last || bad_in_a_row() == 0);
    saving_->boundary(state_, engine_, due, step == last, metrics_or_none, progress_or_none);
  }
  stopping_.remove_file();
  if (progress_) {
    const char* goes_on = state_.step == steps   ? ""
                          : why_stopped_.empty() ? "; the same command without --stop-after goes on"
                                                 : "; the same command goes on";
    progress_->note(fmt::format("{} step {} of {}, digest {}, peak memory of rank 0 {}{}",
                                state_.step < steps ? "stopped after" : "done:", state_.step, steps,
                                digest_text(state_.digest), size_text(peak_memory()), goes_on));
  }
  return state_.step < steps ? RunOutcome::Stopped : RunOutcome::Done;
}

bool Training::share_last_step(RankNews mine, bool time_counts) {
  double next_s = time_counts ? std::max(pace_.longest(), mine.step_s) : -std::numeric_limits<double>::infinity();
  if (is_due(config_.train.eval_every, state_.step + 1, config_.train.steps)) next_s += longest_evaluation_s_;
  mine.stop = stopping_.asked(next_s, expected_save_s());
  mine.gap_s = watchdog_.take_gap();
  const News news = share_news(world_, mine);
  if (progress_ && state_.step > 0) {
    const std::string slow = slow_step_text(state_.step, news, pace_.known() ? pace_.usual() : 0, watchdog_.hosts());
    if (!slow.empty()) progress_->note(slow);
  }
  if (news.step.seconds > 0) pace_.add(news.step.seconds);
  if (news.stop == StopReason::None) return false;
  if (why_stopped_.empty()) {
    const int rank = news.stop_rank.value();
    why_stopped_ = stopping_.because(news.stop, rank, watchdog_.hosts()[usize(rank)]);
    if (progress_) {
      progress_->note(fmt::format("stopping at step {}: {}", std::max<std::int64_t>(state_.step, 1), why_stopped_));
    }
  }
  return true;
}

double Training::expected_save_s() const {
  if (saving_->longest_s() > 0) return saving_->longest_s();
  return 1 + static_cast<double>(count_parameters(config_).total) * 3 * sizeof(float) / 100e6;
}

void Training::one_step(StepMetrics& metrics, RankNews& mine) {
  watchdog_.begin_step(pace_.known() ? pace_.usual() : 0);
  const auto start = Clock::now();
  const double waited_before = waited_seconds();
  std::string skip;
  StepHooks hooks;
  hooks.accept = [&](const StepReport& report) {
    if (!guard_.is_spike(report.loss, state_.spike_losses)) return true;
    skip = loss_spike;
    return false;
  };
  hooks.before_update = [this] { saving_->before_update(); };
  const StepReport report = engine_.step(
      state_.step, state_.updates, state_.next_sample,
      [this](std::int64_t sample, std::span<std::int32_t> tokens) { loader_.read(sample, tokens); }, hooks);
  ++state_.step;
  if (report.applied) {
    ++state_.updates;
    guard_.remember(report.loss, state_.spike_losses);
    state_.not_finite_in_a_row = state_.spikes_in_a_row = 0;
  } else {
    if (skip.empty()) skip = not_finite;
    ++state_.skipped;
    leave_out(skip, report.loss);
  }
  if (report.rebalance) {
    saving_->writers_changed();
    if (progress_) progress_->note(rebalance_text(state_.step, *report.rebalance));
  }
  state_.next_sample += config_.train.global_batch;
  state_.epoch = state_.next_sample / loader_.sequences();
  state_.tokens += report.tokens;
  mine.step_s = seconds_since(start);
  mine.busy_s = mine.step_s - (waited_seconds() - waited_before);
  const LaneTimes exchange = engine_.take_exchange_times();
  metrics = metrics_of(report, config_.moe, state_, skip, mine.step_s,
                       config_.device == "cpu" ? std::optional(exchange) : std::nullopt);
}

void Training::leave_out(const std::string& why, double loss) {
  ++(why == loss_spike ? state_.spikes_in_a_row : state_.not_finite_in_a_row);
  if (world_.is_root()) {
    if (why == loss_spike) {
      log_warning(
          "step {}: the loss is {:.4f}, {:.1f} deviations above the last {}; the update is left out on all ranks",
          state_.step, loss, *guard_.score(loss, state_.spike_losses), state_.spike_losses.size());
    } else {
      log_warning("step {}: a NaN, an infinity or an overflow in the gradients; the update is left out on all ranks",
                  state_.step);
    }
  }
  if (bad_in_a_row() < config_.train.max_bad_steps) return;
  // A checkpoint that is still being written is one of before these steps.
  std::string unsaved;
  try {
    saving_->boundary(state_, engine_, /*due=*/false, /*last=*/true, nullptr, progress_ ? &*progress_ : nullptr);
  } catch (const CollectiveError& error) {
    unsaved = fmt::format(". Besides, {}", error.what());
  }
  const fs::path& good = saving_->last_good();
  throw CollectiveError(
      ErrorKind::Runtime,
      fmt::format(
          "the updates of {} steps in a row, up to step {}, had to be left out ({} not finite, {} loss spikes): "
          "the run has diverged. Nothing of these steps has been saved; the last good checkpoint is {}. A lower "
          "train.lr or a longer train.warmup_steps may help{}",
          bad_in_a_row(), state_.step, state_.not_finite_in_a_row, state_.spikes_in_a_row,
          good.empty() ? "none: the run has not saved yet" : good.string(), unsaved));
}

}  // namespace switchyard
