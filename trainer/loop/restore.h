// From a checkpoint on disk to a config, a tokenizer and weights.
#pragma once

#include "data/tokenizer/tokenizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/engine.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// path: a step folder, a run's checkpoints folder, or a run's folder (then its newest checkpoint). Throws Error(Usage)
// where there is none, and Error(Data) where the newest is damaged: a path never falls back to an older one.
CheckpointInfo locate_checkpoint(const std::filesystem::path& path);
// The same on all ranks: rank 0 looks, since a run may be saving meanwhile. Collective.
CheckpointInfo locate_checkpoint(const Group& world, const std::filesystem::path& path);

// The newest complete checkpoint of a run's checkpoints folder (before step `before`), the same on all ranks; what was
// passed over, and why, too. Collective.
std::optional<CheckpointInfo> newest_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                                std::optional<std::int64_t> before,
                                                std::vector<std::string>& passed_over);

// The config that a checkpoint was trained with, for any number of ranks: parallel.expert and moe.replicas are 0.
Config config_of(const CheckpointInfo& checkpoint);
// The same for using what it has learnt: on the CPU, in fp32, where the device that it was trained on is not here.
Config config_here(const CheckpointInfo& checkpoint);

// Throws Error(Usage) where a run with `config` cannot go on from the checkpoint, naming every key that stands against
// it; gives the changes that are let through but make it another run.
std::vector<std::string> check_continues(const CheckpointInfo& checkpoint, const Config& config);

// The tokenizer beside a checkpoint (a run keeps a copy in its folder), or where its config says.
std::filesystem::path tokenizer_of(const CheckpointInfo& checkpoint, const Config& config);
// Puts a copy of the tokenizer at `from` into the run's folder, where it is not there already.
void keep_tokenizer(const std::filesystem::path& from, const std::filesystem::path& run_folder);

// What to fill: moments too, or weights alone.
enum class LoadWhat { Weights, WeightsAndOptimizer };
// Fills the engine's state and compares its digest with the checkpoint's. Collective.
void load_state(Engine& engine, const Group& world, const CheckpointInfo& checkpoint, LoadWhat what);

}  // namespace switchyard
