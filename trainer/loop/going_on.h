// Which checkpoint a run goes on from, and what must hold for that.
#pragma once

#include "comm/group/group.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/loop/run.h"

#include <cstdint>
#include <functional>
#include <optional>

namespace switchyard {

// The checkpoint to go on from, the same on all ranks. before: only those of earlier steps, because a later one could
// not be loaded.
std::optional<CheckpointInfo> choose_checkpoint(const Group& world, const RunOptions& options,
                                                std::optional<std::int64_t> before = std::nullopt);

// What a run goes on from must suit its config and its folder: throws CollectiveError where it does not. Collective.
void check_chosen(const Group& world, const CheckpointInfo& checkpoint, const Config& config,
                  const RunOptions& options);

// Does `work` with the checkpoint or, where that turns out to be damaged and the run may choose, with the newest one
// before it; gives the one that it was done with.
CheckpointInfo first_that(const Group& world, CheckpointInfo checkpoint, const Config& config,
                          const RunOptions& options, const std::function<void(const CheckpointInfo&)>& work);

}  // namespace switchyard
