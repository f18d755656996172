#include "launch/cli.h"

#include "comm/group/environment.h"
#include "comm/group/fault_point.h"
#include "launch/bench.h"
#include "launch/checkpoint.h"
#include "launch/commands.h"
#include "launch/eval.h"
#include "launch/generate.h"
#include "launch/prepare.h"
#include "launch/threads.h"
#include "launch/train.h"
#include "trainer/loop/failure.h"

#include <array>

#include <fmt/core.h>

namespace switchyard {
namespace {

// In the order in which --help lists them.
constexpr std::array commands = {
    add_train, add_prepare, add_eval, add_generate, add_checkpoint, add_bench,
};

int run(int argc, char** argv) {
  settle_threads(argv);
  CommandLine line(
      "switchyard", "Trains mixture-of-experts transformers with the experts spread over MPI ranks.",
      fmt::format("switchyard " SWITCHYARD_VERSION "{}", has_fault_points() ? " (with fault points)" : ""));
  Run command;
  for (const auto add : commands) add(line.root(), command);
  return line.parse(argc, argv) ? command() : 0;
}

}  // namespace

// The catch of the program.
int run_command_line(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const UsageError& error) {
    refuse_to_start(error.what(), error.exit_code());
  } catch (const ConfigFaults& faults) {
    refuse_to_start(fmt::format("switchyard: {}", faults.what()), faults.exit_code());
  } catch (const std::exception& error) {
    end_job_over(error);
  }
}

}  // namespace switchyard
