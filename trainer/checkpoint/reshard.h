// Rewrites a checkpoint into other files, a piece of a few hundred KiB at a time: what it takes in memory does not hang
// on the size of an expert.
#pragma once

#include "trainer/checkpoint/reshard_plan.h"

#include <cstdint>
#include <filesystem>
#include <functional>

namespace switchyard {

struct Resharded {
  std::int64_t ranks = 0;
  std::int64_t files = 0;
  std::int64_t bytes = 0;  // of all files
};
// done and total: bytes of tensors.
using ReshardProgress = std::function<void(std::int64_t done, std::int64_t total)>;

// Every tensor is checked as it is read, and the new checkpoint appears under its name only once it is whole and on the
// disk: killed at any instant, it is not there. destination must not exist, or be an empty folder. Throws
// Error(Usage), Error(Data) where the source is damaged, or Error(Runtime).
Resharded reshard_checkpoint(const std::filesystem::path& step_folder, const std::filesystem::path& destination,
                             const checkpoint::ReshardOptions& options, const ReshardProgress& progress);

}  // namespace switchyard
