// From a checkpoint on disk to a config, a tokenizer and weights.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/engine.h"

namespace switchyard {

// path: a step folder, a run's checkpoints folder, or a run's folder (then its newest complete checkpoint). Throws
// Error(Usage) where there is none.
CheckpointInfo locate_checkpoint(const std::filesystem::path& path);

// The config that a checkpoint was trained with, and `sets` over it.
Config config_of(const CheckpointInfo& checkpoint, std::span<const std::string> sets, int ranks);

// The tokenizer beside a checkpoint (a run keeps a copy in its folder), or where its config says.
std::filesystem::path tokenizer_of(const CheckpointInfo& checkpoint, const Config& config);
// Puts a copy of the tokenizer at `from` into the run's folder.
void keep_tokenizer(const std::filesystem::path& from, const std::filesystem::path& run_folder);

enum class LoadWhat { Weights, WeightsAndOptimizer };
// Fills the engine's state and compares its digest with the checkpoint's. Collective.
void load_state(Engine& engine, const Group& world, const CheckpointInfo& checkpoint, LoadWhat what);

}  // namespace switchyard
