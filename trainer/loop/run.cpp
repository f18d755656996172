#include "trainer/loop/run.h"

#include "comm/base/log.h"
#include "comm/base/timers.h"
#include "comm/group/affinity.h"
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "comm/group/news.h"
#include "comm/group/pace.h"
#include "comm/group/slow_rank.h"
#include "comm/group/watchdog.h"
#include "comm/transport/waiting.h"
#include "data/loader/durable.h"
#include "data/loader/loader.h"
#include "data/loader/token_shard.h"
#include "trainer/config/load.h"
#include "trainer/config/schema.h"
#include "trainer/loop/engine.h"
#include "trainer/loop/evaluation.h"
#include "trainer/loop/failure.h"
#include "trainer/loop/folder_lock.h"
#include "trainer/loop/memory_plan.h"
#include "trainer/loop/restore.h"
#include "trainer/loop/saving.h"
#include "trainer/loop/spike_guard.h"
#include "trainer/model/catalogue.h"
#include "trainer/monitor/banner.h"
#include "trainer/monitor/memory.h"
#include "trainer/monitor/metrics.h"
#include "trainer/monitor/progress.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>

#include <omp.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct RunData {
  std::shared_ptr<const TokenShards> train;
  std::unique_ptr<ValidSplit> valid;  // null where the folder has no held-out text long enough
};

RunData open_data(const Group& world, Config& config) {
  RunData data;
  collectively(world, "opening the data", [&] {
    data.train = TokenShards::open(config.data.train, Split::Train);
    if (config.model.vocab == 0) config.model.vocab = data.train->vocab();
    if (config.model.vocab < data.train->vocab()) {
      fail(ErrorKind::Usage, "model.vocab = {} is too small: the token ids of {} go up to {}", config.model.vocab,
           config.data.train, data.train->vocab() - 1);
    }
    if (config.data.valid.empty() || !fs::exists(config.data.valid)) return;
    const auto shards = TokenShards::open(config.data.valid, Split::Valid);
    if (shards->tokens() <= config.model.seq_len) return;
    data.valid = std::make_unique<ValidSplit>(shards, config.data.valid, config.model.seq_len);
    if (data.valid->vocab() > config.model.vocab) {
      fail(ErrorKind::Usage, "model.vocab = {} is too small for the held-out split: the token ids of {} go up to {}",
           config.model.vocab, config.data.valid, data.valid->vocab() - 1);
    }
  });
  require_same(world, "the number of training tokens", std::to_string(data.train->tokens()));
  return data;
}

// The checkpoint to go on from, the same on all ranks. before: only those of earlier steps, because a later one could
// not be loaded.
std::optional<CheckpointInfo> choose_checkpoint(const Group& world, const RunOptions& options,
                                                std::optional<std::int64_t> before = std::nullopt) {
  if (options.resume == Resume::Path) {
    return locate_checkpoint(world, options.resume_path);  // damaged or not: a path never falls back to another
  }
  const fs::path checkpoints = options.out / "checkpoints";
  std::vector<std::string> passed_over;
  const auto newest = newest_checkpoint(world, checkpoints, before, passed_over);
  if (world.is_root()) {
    for (const std::string& reason : passed_over) log_warning("passed over a checkpoint: {}", reason);
  }
  const bool any = newest || !passed_over.empty() || before;
  if (options.resume == Resume::Never && any) {
    throw CollectiveError(ErrorKind::Usage, fmt::format("{} holds checkpoints already, and --resume never would write "
                                                        "over them: choose another --out",
                                                        checkpoints.string()));
  }
  if (options.resume == Resume::Must && !any) {
    throw CollectiveError(ErrorKind::Usage,
                          fmt::format("--resume must: there is no complete checkpoint in {}", checkpoints.string()));
  }
  if (!newest && any) {
    // Starting anew would take the place of what somebody may still mend.
    throw CollectiveError(
        ErrorKind::Data, fmt::format("there is no complete checkpoint in {} that can be loaded: mend or remove what is "
                                     "there, or choose another --out to start anew",
                                     checkpoints.string()));
  }
  return newest;
}

// A run's folder holds one history: going on from an earlier step in it would leave the later ones as its newest, and
// another run's checkpoints and metrics do not belong to this one.
void check_out_folder(const RunOptions& options, const CheckpointInfo& checkpoint) {
  if (options.resume != Resume::Path) return;
  const fs::path checkpoints = options.out / "checkpoints";
  const auto newest = find_newest_checkpoint(checkpoints);
  if (newest && newest->state.step > checkpoint.state.step) {
    fail(ErrorKind::Usage, "{} holds step {} already, and --resume goes back to step {}: choose another --out",
         checkpoints.string(), newest->state.step, checkpoint.state.step);
  }
  if (newest && newest->state.run_id != checkpoint.state.run_id) {
    fail(ErrorKind::Usage, "{} holds checkpoints of another run than {}: choose another --out", checkpoints.string(),
         checkpoint.path.string());
  }
}

Banner make_banner(const Config& config, Layout& layout, const RunData& data, const fs::path& out,
                   std::int64_t first_step) {
  const ParameterCounts counts = count_parameters(config);
  const int threads = omp_get_max_threads();
  Banner banner;
  banner.version = SWITCHYARD_VERSION;
  banner.run = out.string();
  banner.ranks = layout.world().size();
  banner.hosts = layout.nodes().hosts;
  for (const auto& ranks : layout.nodes().ranks_on) banner.ranks_on.push_back(static_cast<int>(ranks.size()));
  banner.nodes_forced = layout.nodes().forced;
  banner.threads = threads;
  banner.expert_size = layout.grid().expert_size;
  banner.expert_groups = layout.grid().groups();
  banner.zero = config.parallel.zero;
  banner.device = config.device;
  banner.exchange = layout.lane().name();
  banner.why_exchange = layout.why_exchange();
  banner.wire = config.exchange;
  banner.max_received_rows = config.moe.max_received_rows;
  banner.numerics = config.train.numerics == Numerics::Reproducible ? "reproducible" : "fast";
  banner.d_model = config.model.d_model;
  banner.layers = config.model.layers;
  for (std::int64_t l = 0; l < config.model.layers; ++l) banner.mixture_layers += is_moe_layer(config, l) ? 1 : 0;
  banner.heads = config.model.heads;
  banner.kv_heads = config.model.kv_heads;
  banner.vocab = config.model.vocab;
  banner.seq_len = config.model.seq_len;
  banner.experts = config.moe.experts;
  banner.top_k = config.moe.top_k;
  banner.shared_experts = config.moe.shared_experts;
  banner.capacity_factor = config.moe.capacity_factor;
  banner.parameters = counts.total;
  banner.active_parameters = counts.active;
  banner.data = config.data.train;
  banner.train_tokens = data.train->tokens();
  banner.steps = config.train.steps;
  banner.first_step = first_step;
  banner.global_batch = config.train.global_batch;
  banner.micro_batch = config.train.micro_batch;
  const MemoryPlan memory = plan_largest_memory(config, layout.grid(), threads, Bytes(peak_memory()));
  banner.memory = {{"weights", memory.weights},         {"gradients", memory.gradients},
                   {"optimizer", memory.optimizer},     {"packed weights", memory.packed},
                   {"activations", memory.activations}, {"buffers", memory.buffers},
                   {"snapshot", memory.snapshot},       {"program", memory.program}};
  banner.memory_available = available_memory();
  return banner;
}

// Why an update is left out, as the metrics and the log have it.
constexpr const char* not_finite = "not finite";
constexpr const char* loss_spike = "loss spike";

StepMetrics metrics_of(const StepReport& report, const MoeConfig& moe, const RunState& state, const std::string& skip,
                       double seconds, const LaneTimes& exchange) {
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
  metrics.exchange_s = exchange.busy;
  metrics.exchange_hidden = exchange.busy > 0 ? exchange.hidden() / exchange.busy : 0;
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

// Is `step` one at which something happens that is due every so many steps, and at the end?
bool is_due(std::int64_t every, std::int64_t step, std::int64_t last) {
  return step == last || (every > 0 && step % every == 0);
}

class Run {
 public:
  Run(const Group& world, const Config& config, const RunOptions& options, const RunData& data, Layout& layout,
      Watchdog& watchdog, Stopping& stopping)
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

  void restore(const CheckpointInfo& checkpoint) {
    load_state(engine_, world_, checkpoint, LoadWhat::WeightsAndOptimizer);
    const std::string config_toml = state_.config_toml;
    const std::string run_id = options_.resume == Resume::Path ? state_.run_id : checkpoint.state.run_id;
    state_ = checkpoint.state;
    state_.numerics = config_.train.numerics;
    state_.config_toml = config_toml;
    state_.run_id = run_id;
    resumed_from_ = checkpoint.path;
  }

  RunOutcome train() {
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

  const RunState& state() const { return state_; }

 private:
  // Between two steps: the ranks tell each other how the last one went and whether anyone is asked to stop, which is
  // the answer. Collective, and alike on all ranks.
  bool share_last_step(RankNews mine, bool time_counts = true) {
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

  // Before there has been a save it is taken to go at 100 MB/s: weights and two moments.
  double expected_save_s() const {
    if (saving_->longest_s() > 0) return saving_->longest_s();
    return 1 + static_cast<double>(count_parameters(config_).total) * 3 * sizeof(float) / 100e6;
  }

  void one_step(StepMetrics& metrics, RankNews& mine) {
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
      if (progress_) progress_->note(rebalance_text(*report.rebalance));
    }
    state_.next_sample += config_.train.global_batch;
    state_.epoch = state_.next_sample / loader_.sequences();
    state_.tokens += report.tokens;
    mine.step_s = seconds_since(start);
    mine.busy_s = mine.step_s - (waited_seconds() - waited_before);
    metrics = metrics_of(report, config_.moe, state_, skip, mine.step_s, engine_.take_exchange_times());
  }

  std::int64_t bad_in_a_row() const { return state_.not_finite_in_a_row + state_.spikes_in_a_row; }

  // Counts and tells an update that was left out; ends the run where there have been too many.
  void leave_out(const std::string& why, double loss) {
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

  std::string rebalance_text(const RebalanceReport& report) const {
    if (report.moved == 0) {
      return fmt::format("step {}: all experts stay; the busiest rank has {:.2f} times the mean work", state_.step,
                         report.before);
    }
    return fmt::format(
        "step {}: {} experts moved in {} layers; the busiest rank's work over the mean {:.2f} -> {:.2f}; {} in {:.2f} "
        "s",
        state_.step, report.moved, report.layers, report.before, report.after, size_text(report.bytes), report.seconds);
  }

  std::string evaluation_text(const StepMetrics& metrics) const {
    std::string text = fmt::format("step {}: validation loss {:.4f}", metrics.step, *metrics.valid_loss);
    if (metrics.valid_bits_per_byte) text += fmt::format(", {:.4f} bits per byte", *metrics.valid_bits_per_byte);
    return text;
  }

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
  fs::path resumed_from_;
  std::optional<Saving> saving_;  // last: a save under way reads what stands above
};

// What a run goes on from must suit its config and its folder.
void check_chosen(const Group& world, const CheckpointInfo& checkpoint, const Config& config,
                  const RunOptions& options) {
  std::vector<std::string> noted;
  collectively(world, "comparing the config with the checkpoint's", [&] {
    noted = check_continues(checkpoint, config);
    check_out_folder(options, checkpoint);
  });
  if (world.is_root()) {
    for (const std::string& change : noted) log_warning("the run goes on with another setting: {}", change);
  }
}

// Does `work` with the checkpoint or, where that turns out to be damaged and the run may choose, with the newest one
// before it; gives the one that it was done with.
CheckpointInfo first_that(const Group& world, CheckpointInfo checkpoint, const Config& config,
                          const RunOptions& options, const std::function<void(const CheckpointInfo&)>& work) {
  for (;;) {
    try {
      work(checkpoint);
      return checkpoint;
    } catch (const CollectiveError& error) {
      if (error.kind() != ErrorKind::Data || options.resume == Resume::Path) throw;
      if (world.is_root()) log_warning("passed over a checkpoint: {}", error.what());
    }
    checkpoint = *choose_checkpoint(world, options, checkpoint.state.step);
    check_chosen(world, checkpoint, config, options);
    if (world.is_root()) log_info("going on from {}", checkpoint.path.string());
  }
}

}  // namespace

RunOutcome run_training(const Group& world, Config config, const RunOptions& options) {
  Watchdog watchdog(world, {.factor = config.watchdog.factor,
                            .least_s = config.watchdog.least_s,
                            .allowance_s = config.watchdog.allowance_s,
                            .silence_s = config.watchdog.silence_s});
  std::optional<FolderLock> lock;
  collectively(world, "taking the run's folder", [&] {
    if (world.is_root() && !options.dry_run) lock.emplace(options.out);
  });
  Stopping stopping(world.is_root() && !options.dry_run ? options.out : fs::path(),
                    world.is_root() ? options.time_limit : std::nullopt);
  if (stopping.remove_old_file()) {
    log_warning("{} was there before the run began: it is removed and asks for nothing",
                (options.out / "stop").string());
  }
  const RunData data = open_data(world, config);
  std::optional<CheckpointInfo> checkpoint = choose_checkpoint(world, options);
  if (checkpoint) check_chosen(world, *checkpoint, config, options);
  Layout layout(world, config);
  const std::string warning = affinity_warning(world, omp_get_max_threads());
  if (world.is_root()) {
    const bool colour = ::isatty(STDERR_FILENO) != 0;
    const std::int64_t first_step = checkpoint ? checkpoint->state.step : 0;
    fmt::print(stderr, "{}", format_banner(make_banner(config, layout, data, options.out, first_step), colour));
    if (!warning.empty()) log_warning("{}", warning);
    if (checkpoint) log_info("going on from {}", checkpoint->path.string());
  }
  if (options.dry_run) return RunOutcome::Done;
  const auto is_finished = [&] { return checkpoint && checkpoint->state.step >= config.train.steps; };
  if (is_finished()) {
    // Nothing is to be done only where what was done is whole.
    checkpoint = first_that(world, *checkpoint, config, options,
                            [&](const CheckpointInfo& found) { load_checkpoint(world, found.path, {}); });
    if (is_finished()) {
      log_info("{} has all {} steps already: nothing is left to do", checkpoint->path.string(), config.train.steps);
      return RunOutcome::Done;
    }
  }
  Run run(world, config, options, data, layout, watchdog, stopping);
  try {
    if (checkpoint) {
      first_that(world, *checkpoint, config, options, [&](const CheckpointInfo& found) { run.restore(found); });
    }
    return run.train();
  } catch (const std::exception& error) {
    end_job_over(error);  // before the run goes, which would wait for a save under way
  }
}

}  // namespace switchyard
