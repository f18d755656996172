#include "trainer/loop/going_on.h"

#include "comm/base/log.h"
#include "comm/group/agree.h"
#include "trainer/loop/restore.h"

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

std::optional<CheckpointInfo> choose_checkpoint(const Group& world, const RunOptions& options,
                                                std::optional<std::int64_t> before) {
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

}  // namespace switchyard
