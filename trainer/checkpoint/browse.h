// What someone means who names a folder: a step folder, a run's checkpoints, a run, or a folder of runs.
#pragma once

#include "trainer/checkpoint/checkpoint.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct StepListing {
  std::filesystem::path path;
  std::optional<CheckpointInfo> info;  // where the manifest can be read
  std::int64_t files = 0;
  std::string problem;  // empty: manifest and file sizes are right
};
struct RunListing {
  std::filesystem::path run;                    // the run's folder
  std::vector<StepListing> checkpoints;         // newest first
  std::vector<std::filesystem::path> leavings;  // of saves that are going on, or were cut short
};
// The runs that have something to list, by name; a folder of runs is searched one level deep. Only manifests and sizes
// are read. Throws Error(Usage) where
// there is no such folder.
std::vector<RunListing> list_runs(const std::filesystem::path& path);

// The step folders that `path` stands for, complete or not, newest first: itself, or all of a run. Throws Error(Usage)
// where there are none.
std::vector<std::filesystem::path> step_folders_of(const std::filesystem::path& path);

// The one checkpoint that `path` stands for: the step folder itself, whatever its state, or a run's newest complete
// one; why newer ones were passed over is appended to `skipped`. Throws Error(Usage) where there is none.
std::filesystem::path one_step_folder(const std::filesystem::path& path, std::vector<std::string>* skipped);

}  // namespace switchyard
