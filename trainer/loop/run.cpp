#include "trainer/loop/run.h"

#include "comm/base/log.h"
#include "comm/group/affinity.h"
#include "comm/group/agree.h"
#include "comm/group/watchdog.h"
#include "trainer/loop/failure.h"
#include "trainer/loop/folder_lock.h"
#include "trainer/loop/going_on.h"
#include "trainer/loop/layout.h"
#include "trainer/loop/run_banner.h"
#include "trainer/loop/run_data.h"
#include "trainer/loop/training.h"

#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <fmt/core.h>
#include <omp.h>
#include <unistd.h>

namespace switchyard {

namespace fs = std::filesystem;

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
  Training training(world, config, options, data, layout, watchdog, stopping);
  try {
    if (checkpoint) {
      first_that(world, *checkpoint, config, options, [&](const CheckpointInfo& found) { training.restore(found); });
    }
    return training.train();
  } catch (const std::exception& error) {
    end_job_over(error);  // before the run goes, which would wait for a save under way
  }
}

}  // namespace switchyard
