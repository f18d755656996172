#include "launch/bench.h"

#include "launch/bench_checkpoint.h"
#include "launch/bench_exchange.h"
#include "launch/bench_gemm.h"
#include "launch/bench_step.h"

#include <memory>

namespace switchyard {
namespace {

void add_bench_gemm(const Command& parent, Run& run) {
  const Command command = parent.add_command(
      "gemm", "The grouped products of an expert layer, beside OpenBLAS and the core's peak, or cuBLAS");
  auto options = std::make_shared<BenchGemmOptions>();
  command.add_option("--threads", options->threads, "Threads (0: as many as OpenMP has)",
                     {.accepted = accept::NotNegative(), .show_default = true});
  command.add_option("--seconds", options->seconds, "For each row count and product",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_option("--d-model", options->d_model, "Width of a row",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_option("--d-ff", options->d_ff, "Inner width of an expert",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_option("--experts", options->experts, "Groups of the grouped product",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_option("--rows", options->rows, "Rows an expert, one count or more (default: a choice of them)",
                     {.accepted = accept::Positive()});
  command.add_option("--device", options->device, "cpu, cuda or cuda:N", {.show_default = true});
  command.add_option("--dtype", options->dtype, "Of rows and weights on a GPU",
                     {.accepted = accept::OneOf{{"bf16", "fp32"}}, .show_default = true});
  command.add_flag("--all-rows", options->all_rows, "Every row count from 1 to 2048, not a choice of them");
  command.add_flag("--json", options->json, "End with one line that holds one JSON object");
  command.does(run, [options] { return bench_gemm(*options); });
}

}  // namespace

void add_bench(const Command& parent, Run& run) {
  const Command bench = parent.add_command("bench", "Measure parts of the program on this machine");
  bench.require_command();
  add_bench_gemm(bench, run);
  add_bench_step(bench, run);
  add_bench_exchange(bench, run);
  add_bench_checkpoint(bench, run);
}

}  // namespace switchyard
