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

#include <CLI/CLI.hpp>

namespace switchyard {
namespace {

// In the order in which --help lists them.
constexpr std::array commands = {
    add_train, add_prepare, add_eval, add_generate, add_checkpoint, add_bench,
};

int run(int argc, char** argv) {
  settle_threads(argv);
  CLI::App app("Trains mixture-of-experts transformers with the experts spread over MPI ranks.", "switchyard");
  set_up_app(app);
  app.set_version_flag(
      "--version", fmt::format("switchyard " SWITCHYARD_VERSION "{}", has_fault_points() ? " (with fault points)" : ""),
      "Print the version and leave");
  Run command;
  for (const auto add : commands) add(app, command);
  return parse_command_line(app, argc, argv) ? command() : 0;
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
