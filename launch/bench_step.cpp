// switchyard bench step: whole training steps of a config on random tokens, reproducible numerics beside fast, with
// where the time goes and how far the arithmetic is from what the cores can do.
#include "launch/bench_step.h"

#include "comm/group/environment.h"
#include "launch/bench_step_device.h"
#include "launch/cli.h"
#include "launch/step_candidate.h"
#include "layers/ops/gemm.h"
#include "trainer/loop/memory_plan.h"
#include "trainer/monitor/memory.h"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <omp.h>

namespace switchyard {
namespace {

struct Arguments {
  ConfigOptions config;
  std::int64_t steps = 3;
  std::string numerics;  // "": both on the CPU, the config's on a GPU, where models are made to fill the card
  std::string device;    // "": the config's
  bool json = false;
};

nlohmann::json to_json(const StepCandidate& candidate, double peak) {
  const double rest = 1 - candidate.share(Phase::Gemm) - candidate.share(Phase::Attention) -
                      candidate.share(Phase::Exchange) - candidate.share(Phase::Optimizer);
  return {{"tokens_per_s", candidate.tokens_per_second()},
          {"step_time_s", candidate.median_seconds()},
          {"share_gemm", candidate.share(Phase::Gemm)},
          {"share_attention", candidate.share(Phase::Attention)},
          {"share_exchange", candidate.share(Phase::Exchange)},
          {"share_optimizer", candidate.share(Phase::Optimizer)},
          {"share_rest", rest},
          {"gemm_gflops", candidate.rate(Phase::Gemm)},
          {"gemm_of_peak", candidate.rate(Phase::Gemm) / peak},
          {"attention_gflops", candidate.rate(Phase::Attention)},
          {"attention_of_peak", candidate.rate(Phase::Attention) / peak},
          {"step_gflops", candidate.step_rate()},
          {"step_of_peak", candidate.step_rate() / peak}};
}

void print_row(const char* name, const nlohmann::json& figures) {
  const auto percent = [&](const char* key) { return 100 * figures.at(key).get<double>(); };
  fmt::print(
      "{:<13} {:>9.0f} {:>8.3f} s  {:>5.1f} {:>9.1f} {:>8.1f} {:>9.1f} {:>5.1f}   {:>6.1f} ({:>4.1f} %)  {:>6.1f} "
      "({:>4.1f} %)\n",
      name, figures.at("tokens_per_s").get<double>(), figures.at("step_time_s").get<double>(), percent("share_gemm"),
      percent("share_attention"), percent("share_exchange"), percent("share_optimizer"), percent("share_rest"),
      figures.at("gemm_gflops").get<double>(), percent("gemm_of_peak"), figures.at("step_gflops").get<double>(),
      percent("step_of_peak"));
}

int run_bench_step(const Arguments& arguments) {
  ConfigOptions options = arguments.config;
  if (!arguments.device.empty()) options.sets.push_back("device=" + arguments.device);
  Config config = load_config(options, DataFiles::NotNeeded);
  if (config.model.vocab == 0) config.model.vocab = 4096;  // there is no tokenizer to ask
  Environment environment;
  const Group& world = environment.world();
  const bool on_cpu = open_device(config.device, launched_as().local_rank).kind() == DeviceKind::Cpu;
  std::vector<Numerics> wanted;
  if (arguments.numerics.empty() && !on_cpu) {
    wanted.push_back(config.train.numerics);
  } else {
    if (arguments.numerics != "fast") wanted.push_back(Numerics::Reproducible);
    if (arguments.numerics != "reproducible") wanted.push_back(Numerics::Fast);
  }
  if (!on_cpu) {
    return bench_step_on_device(config, wanted, arguments.steps, arguments.json, world);
  }
  const int threads = omp_get_max_threads();
  start_phase_clock();

  const Grid grid =
      make_grid(world.size(), static_cast<int>(config.parallel.expert), static_cast<int>(config.moe.experts));
  const Bytes program(peak_memory());
  std::vector<std::unique_ptr<StepCandidate>> candidates;
  std::int64_t predicted = 0;
  std::int64_t measured = 0;
  std::int64_t optimizer = 0;
  std::int64_t activations = 0;
  for (const Numerics numerics : wanted) {
    config.train.numerics = numerics;
    candidates.push_back(std::make_unique<StepCandidate>(config, world));
    candidates.back()->step(/*counted=*/false);
    candidates.back()->step(/*counted=*/false);
    if (candidates.size() == 1) {  // later ones stand beside it: this is what a run of its own takes
      predicted = plan_memory(config, grid, world.rank(), threads, program).total();
      std::array<double, 4> largest = {static_cast<double>(predicted), static_cast<double>(peak_memory()),
                                       static_cast<double>(candidates.back()->optimizer_size().value()),
                                       static_cast<double>(candidates.back()->activations_peak().value())};
      world.max(largest);
      predicted = static_cast<std::int64_t>(largest[0]);
      measured = static_cast<std::int64_t>(largest[1]);
      optimizer = static_cast<std::int64_t>(largest[2]);
      activations = static_cast<std::int64_t>(largest[3]);
    }
  }
  // All ranks measure at the same time, as they compute at the same time.
  const auto measure_peak = [&](double seconds) {
    world.barrier();
    return measure_peak_gflops(threads, seconds);
  };
  double peak = measure_peak(0.2);
  for (std::int64_t i = 0; i < arguments.steps; ++i) {
    // In turn, so that a machine that speeds up or slows down does so for both.
    for (const auto& candidate : candidates) candidate->step(/*counted=*/true);
    peak = std::max(peak, measure_peak(0.1));
  }
  if (!world.is_root()) return 0;

  nlohmann::json result = {{"ranks", world.size()},
                           {"threads", threads},
                           {"peak_gflops", peak},
                           {"predicted_memory_bytes", predicted},
                           {"peak_memory_bytes", measured},
                           {"optimizer_bytes", optimizer},
                           {"activation_bytes", activations}};
  fmt::print(
      "rank 0 of {}, {} thread{}; {} steps of {} tokens; multiply-add peak {:.1f} GFLOP/s, measured between the "
      "steps\n\n",
      world.size(), threads, threads == 1 ? "" : "s", arguments.steps, config.train.global_batch * config.model.seq_len,
      peak);
  fmt::print("{:<13} {:>9} {:>10}  {:>5} {:>9} {:>8} {:>9} {:>5}   {:>15}  {:>15}\n", "numerics", "tokens/s", "step",
             "gemm", "attention", "exchange", "optimizer", "rest", "gemm GFLOP/s", "step GFLOP/s");
  fmt::print("{:<13} {:>9} {:>10}  {:-^40}   {:>15}  {:>15}\n", "", "", "", " % of the step ", "(of peak)",
             "(of peak)");
  for (const auto& candidate : candidates) {
    const char* name = name_of(candidate->config().train.numerics);
    result[name] = to_json(*candidate, peak);
    print_row(name, result[name]);
  }
  if (candidates.size() == 2) {
    const double ratio = candidates[0]->median_seconds() / candidates[1]->median_seconds();
    result["reproducible_over_fast"] = ratio;
    fmt::print("\na reproducible step takes {:.3f} of the time of a fast one\n", ratio);
  }
  fmt::print("largest peak memory of a rank ({} alone): {}, predicted {} ({:+.1f} %)\n", name_of(wanted.front()),
             size_text(measured), size_text(predicted),
             100 * (static_cast<double>(predicted) / static_cast<double>(measured) - 1));
  fmt::print("of it, at most: {} of optimizer state, {} of activations and scratch\n", size_text(optimizer),
             size_text(activations));
  if (arguments.json) fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace

void add_bench_step(const Command& parent, Run& run) {
  const Command command =
      parent.add_command("step", "Whole training steps: tokens/s, where the time goes, and how near the peak");
  auto arguments = std::make_shared<Arguments>();
  add_config_options(command, arguments->config, ConfigFile::Option);
  command.add_option("--steps", arguments->steps, "Steps that are measured, after two that are not",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_option("--numerics", arguments->numerics, "Which to measure; default: both, on a GPU the config's",
                     {.accepted = accept::OneOf{{"both", "reproducible", "fast"}}});
  command.add_option("--device", arguments->device, "cpu, cuda or cuda:N, instead of the config's", {.type = "NAME"});
  command.add_flag("--json", arguments->json, "End with one line that holds one JSON object");
  command.does(run, [arguments] { return run_bench_step(*arguments); });
}

}  // namespace switchyard
