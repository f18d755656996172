#include "launch/bench_step_device.h"

#include "comm/device/work.h"
#include "launch/device_rates.h"
#include "launch/step_candidate.h"
#include "launch/table.h"
#include "trainer/model/flops.h"
#include "trainer/monitor/memory.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

struct Rates {
  ProductRate product;
  double copy = 0;
};

Rates measure_rates(Device& device, DType dtype) {
  device.keep_record(true);
  const Rates rates{measure_product_rate(device, dtype), measure_copy_rate(device)};
  device.keep_record(false);
  return rates;
}

// One kind of work, of one step.
nlohmann::json to_json(const WorkTimes& work, const Rates& rates, double step_seconds) {
  nlohmann::json figures = {
      {"name", work.name}, {"calls", work.calls}, {"ms", 1e3 * work.seconds}, {"share", work.seconds / step_seconds}};
  const double seconds = std::max(work.seconds, 1e-12);
  if (work.size.flops > 0) {
    figures["tflops"] = work.size.flops / seconds * 1e-12;
    figures["of_product"] = work.size.flops / seconds * 1e-12 / rates.product.tflops;
  }
  if (work.size.bytes > 0) {
    figures["gb_per_s"] = work.size.bytes / seconds * 1e-9;
    figures["of_copy"] = work.size.bytes / seconds * 1e-9 / rates.copy;
  }
  return figures;
}

nlohmann::json figures_of(StepCandidate& candidate, const Rates& rates, const ModelFlops& flops, int ranks) {
  Device& device = candidate.device();
  const Bytes memory = device.memory_in_use();
  // One more step, in which each op is timed: it takes longer for that, and counts for nothing else.
  device.keep_record(true);
  device.record()->take();
  candidate.step(/*counted=*/false);
  const std::vector<WorkTimes> works = device.record()->take();
  device.keep_record(false);

  const double seconds = candidate.median_seconds();
  const double tflops = flops.total() * static_cast<double>(candidate.step_tokens()) / seconds * 1e-12 / ranks;
  nlohmann::json kernels = nlohmann::json::array();
  double recorded = 0;
  bool by_cudnn = false;
  for (const WorkTimes& work : works) {
    kernels.push_back(to_json(work, rates, seconds));
    by_cudnn = by_cudnn || work.name == "attention (cuDNN)";
    recorded += work.seconds;
  }
  return {{"tokens_per_s", candidate.tokens_per_second()},
          {"step_time_s", seconds},
          {"model_tflops", tflops},
          {"mfu", tflops / rates.product.tflops},
          {"memory_bytes", memory.value()},
          {"activation_bytes", candidate.activations_peak().value()},
          {"recorded_s", recorded},
          {"attention", by_cudnn ? "cudnn" : "ours"},
          {"kernels", std::move(kernels)}};
}

std::string rate_text(const nlohmann::json& figures, const char* rate, const char* share, const char* unit) {
  if (!figures.contains(rate)) return "";
  return fmt::format("{:.1f} {} ({:.0f} %)", figures.at(rate).get<double>(), unit,
                     100 * figures.at(share).get<double>());
}

void print(const char* name, const nlohmann::json& figures) {
  const auto number = [&](const char* key) { return figures.at(key).get<double>(); };
  fmt::print(
      "\n{}: {:.0f} tokens/s, a step in {:.4f} s, {:.2f} TFLOP/s of the model a GPU: {:.1f} % of the measured product "
      "rate (MFU)\n{} of the GPU's memory are in use, {} of it for activations and scratch\n\n",
      name, number("tokens_per_s"), number("step_time_s"), number("model_tflops"), 100 * number("mfu"),
      size_text(figures.at("memory_bytes").get<std::int64_t>()),
      size_text(figures.at("activation_bytes").get<std::int64_t>()));
  Table table({"work", "calls", "ms", "of the step", "arithmetic (of a product)", "memory (of a copy)"});
  for (const nlohmann::json& kernel : figures.at("kernels")) {
    table.add({kernel.at("name").get<std::string>(), std::to_string(kernel.at("calls").get<std::int64_t>()),
               fmt::format("{:.3f}", kernel.at("ms").get<double>()),
               fmt::format("{:.1f} %", 100 * kernel.at("share").get<double>()),
               rate_text(kernel, "tflops", "of_product", "TFLOP/s"), rate_text(kernel, "gb_per_s", "of_copy", "GB/s")});
  }
  fmt::print("{}", table.text());
  fmt::print("attention: {}\n", figures.at("attention").get<std::string>());
  fmt::print("recorded in all: {:.3f} ms in a step of its own; the steps above take {:.3f} ms\n",
             1e3 * number("recorded_s"), 1e3 * number("step_time_s"));
}

}  // namespace

int bench_step_on_device(Config config, const std::vector<Numerics>& wanted, std::int64_t steps, bool json,
                         const Group& world) {
  const ModelFlops flops = count_flops(config);
  nlohmann::json result = {{"ranks", world.size()},
                           {"dtype", name_of(config.train.dtype)},
                           {"product_parameters", flops.product_parameters},
                           {"flops_per_token", flops.total()}};
  bool first = true;
  for (const Numerics numerics : wanted) {
    config.train.numerics = numerics;
    StepCandidate candidate(config, world);  // one at a time: a model that fills the card has no room for a second
    Device& device = candidate.device();
    candidate.step(/*counted=*/false);
    candidate.step(/*counted=*/false);
    for (std::int64_t i = 0; i < steps; ++i) candidate.step(/*counted=*/true);
    const Rates rates =
        measure_rates(device, config.train.dtype);  // while the GPU is as warm as the steps have made it
    nlohmann::json figures = figures_of(candidate, rates, flops, world.size());
    figures["product_tflops"] = rates.product.tflops;
    figures["copy_gb_per_s"] = rates.copy;
    if (world.is_root()) {
      if (first) {
        result["device"] = device.model();
        fmt::print(
            "{} ({}), rank 0 of {}; {} steps of {} tokens, {}\na token's model FLOPs: 6 x {:.1f} million parameters in "
            "products (top {} of {} experts) + {:.1f} million of causal attention; what is computed again is not "
            "counted\n",
            device.model(), device.name(), world.size(), steps, candidate.step_tokens(), name_of(config.train.dtype),
            1e-6 * static_cast<double>(flops.product_parameters), config.moe.top_k, config.moe.experts,
            1e-6 * flops.attention);
        first = false;
      }
      const char* name = name_of(numerics);
      fmt::print("\nmeasured after the steps: a product of {0} x {0} matrices {1:.1f} TFLOP/s, a copy {2:.0f} GB/s\n",
                 rates.product.size, rates.product.tflops, rates.copy);
      print(name, figures);
      result[name] = std::move(figures);
    }
  }
  if (world.is_root() && json) fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace switchyard
