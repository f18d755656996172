#include "launch/bench.h"

#include "launch/bench_checkpoint.h"
#include "launch/bench_exchange.h"
#include "launch/bench_gemm.h"
#include "launch/bench_step.h"

#include <memory>

#include <CLI/CLI.hpp>

namespace switchyard {
namespace {

void add_bench_gemm(CLI::App& parent, Run& run) {
  auto* command = parent.add_subcommand(
      "gemm", "The grouped products of an expert layer, beside OpenBLAS and the core's peak, or cuBLAS");
  auto options = std::make_shared<BenchGemmOptions>();
  command->add_option("--threads", options->threads, "Threads (0: as many as OpenMP has)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "For each row count and product")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--d-model", options->d_model, "Width of a row")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--d-ff", options->d_ff, "Inner width of an expert")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--experts", options->experts, "Groups of the grouped product")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--rows", options->rows, "Rows an expert, one count or more (default: a choice of them)")
      ->check(CLI::PositiveNumber);
  command->add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--dtype", options->dtype, "Of rows and weights on a GPU")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  command->add_flag("--all-rows", options->all_rows, "Every row count from 1 to 2048, not a choice of them");
  command->add_flag("--json", options->json, "End with one line that holds one JSON object");
  command->callback([&run, options] { run = [options] { return bench_gemm(*options); }; });
}

}  // namespace

void add_bench(CLI::App& parent, Run& run) {
  auto* bench = parent.add_subcommand("bench", "Measure parts of the program on this machine");
  bench->require_subcommand(1);
  add_bench_gemm(*bench, run);
  add_bench_step(*bench, run);
  add_bench_exchange(*bench, run);
  add_bench_checkpoint(*bench, run);
}

}  // namespace switchyard
