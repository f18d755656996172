// A training run from the first line of its banner to its last checkpoint.
#pragma once

#include "comm/group/group.h"
#include "trainer/config/config.h"
#include "trainer/loop/stopping.h"

#include <cstdint>
#include <filesystem>
#include <optional>

namespace switchyard {

enum class Resume {
  Auto,   // the newest checkpoint of the run's folder, if there is one
  Must,   // the same, and an error where there is none
  Never,  // start from step 0; refused where the folder has checkpoints already
  Path,   // that checkpoint, whatever is in the run's folder
};

struct RunOptions {
  std::filesystem::path out;  // the run's folder
  Resume resume = Resume::Auto;
  std::filesystem::path resume_path;       // for Path: a step folder
  std::optional<std::int64_t> stop_after;  // save after this many steps in all and leave
  std::optional<TimeLimit> time_limit;     // save and leave before it has passed
  bool dry_run = false;                    // say what would run, and on how much memory
};

enum class RunOutcome { Done, Stopped };

// Collective. The config is resolved but for what depends on the data (model.vocab).
RunOutcome run_training(const Group& world, Config config, const RunOptions& options);

}  // namespace switchyard
