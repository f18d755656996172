// switchyard train: trains a config's model on prepared text.
#include "launch/train.h"

#include "comm/base/nearest.h"
#include "comm/group/environment.h"
#include "comm/group/stop_request.h"
#include "launch/cli.h"
#include "launch/duration.h"
#include "trainer/loop/run.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {
namespace {

constexpr int exit_stopped_early = 75;

struct Arguments {
  ConfigOptions config;
  RunOptions run;
  std::string resume = "auto";
  std::int64_t stop_after = 0;
  std::string time_limit;
};

int run_train(Arguments arguments) {
  const auto start = std::chrono::steady_clock::now();
  RunOptions& run = arguments.run;
  if (arguments.resume == "auto") {
    run.resume = Resume::Auto;
  } else if (arguments.resume == "must") {
    run.resume = Resume::Must;
  } else if (arguments.resume == "never") {
    run.resume = Resume::Never;
  } else {
    run.resume = Resume::Path;
    run.resume_path = arguments.resume;
    if (!std::filesystem::exists(run.resume_path)) {
      const std::vector<std::string> resume_words = {"auto", "must", "never"};
      throw UsageError(fmt::format("--resume {}: neither auto, must or never nor a folder{}", arguments.resume,
                                   did_you_mean(arguments.resume, resume_words)));
    }
  }
  if (arguments.stop_after > 0) run.stop_after = arguments.stop_after;
  if (!arguments.time_limit.empty()) {
    run.time_limit = {.seconds = parse_duration("--time-limit", arguments.time_limit), .start = start};
  }
  const Config config = load_config(arguments.config);  // every fault is told before MPI does any work

  if (!run.dry_run) catch_stop_signals();
  Environment environment;
  return run_training(environment.world(), config, run) == RunOutcome::Stopped ? exit_stopped_early : 0;
}

}  // namespace

void add_train(const Command& parent, Run& run) {
  const Command command = parent.add_command("train", "Train the model of a config on prepared text");
  auto arguments = std::make_shared<Arguments>();
  arguments->run.out = "runs/default";
  add_config_options(command, arguments->config, ConfigFile::Positional);
  command.add_option("--out", arguments->run.out, "The run's folder: config, metrics, checkpoints",
                     {.type = "DIR", .show_default = true});
  command.add_option("--resume", arguments->resume,
                     "auto: from the folder's newest checkpoint if there is one; must; never; or a checkpoint's folder",
                     {.type = "auto|must|never|PATH", .show_default = true});
  command.add_option("--stop-after", arguments->stop_after, "Save and leave after this many steps in all (code 75)",
                     {.accepted = accept::Positive(), .type = "STEP"});
  command.add_option("--time-limit", arguments->time_limit,
                     "Save and leave before this much time has passed since the start (code 75): 5400, 30m, 2:00:00",
                     {.type = "TIME"});
  command.add_flag("--dry-run", arguments->run.dry_run, "Say what would run and what memory it takes, and leave");
  command.does(run, [arguments] { return run_train(*arguments); });
}

}  // namespace switchyard
