// Saving and loading the whole state of a run, whatever the layout that wrote it.
//
//   checkpoints/latest                     a hint: the name of the newest step folder; replaced atomically, never
//   trusted checkpoints/step-00000400/
//     manifest.json                        the truth: run, step, cursor, config, and every file and tensor with its
//     hash index.h5                             one view of everything for h5py, h5ls, HDFView; never read on resume
//     replicated-00000-of-00001.h5         /embed_tokens/weight, /layers/3/self_attn/q_proj/weight, ...
//     experts-00000-of-00004.h5            /layers/3/experts/17/{w_gate,w_up,w_down}; one file for each rank with
//     experts
//
// A parameter's name with slashes for dots is its path. Beside the weights lie Adam's moments, one group a parameter:
// /optimizer/layers/3/experts/17/w_gate/{m,v}.
#pragma once

#include "comm/base/numerics.h"
#include "comm/group/group.h"
#include "layers/tensor/parameter.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

// One tensor of the state as this rank holds it. Names are those of parameters ("layers.3.experts.17.w_gate",
// "embed_tokens.weight"); optimizer state has the parameter's name with kind Moment1 or Moment2.
enum class StateKind { Weight, Moment1, Moment2 };
struct StateTensor {
  std::string name;
  StateKind kind = StateKind::Weight;
  Owner owner;
  Shape shape;  // of the whole tensor
  float* data = nullptr;
  bool write = true;  // this rank writes it (one rank of the world for each element of a tensor)
  // ZeRO-1: `data` is a piece, elements [offset, offset + count) of the tensor in row-major order. count 0: all of it.
  std::int64_t offset = 0;
  std::int64_t count = 0;

  std::int64_t elements() const { return count > 0 ? count : shape.size(); }
};

struct RunState {
  std::int64_t step = 0;         // steps done
  std::int64_t updates = 0;      // steps whose update was applied (bias correction counts these)
  std::int64_t skipped = 0;      // non-finite steps
  std::int64_t tokens = 0;       // trained on
  std::int64_t next_sample = 0;  // data cursor: global index of the next sequence
  std::uint64_t seed = 0;
  std::uint64_t digest = 0;  // of all parameters
  std::string run_id;
  std::string config_toml;  // resolved
  Numerics numerics = Numerics::Reproducible;
};

struct CheckpointInfo {
  std::filesystem::path path;  // .../step-00000400
  RunState state;
  std::int64_t ranks = 0;  // that wrote it
  std::int64_t bytes = 0;  // of all its files
};

// Collective. Writes checkpoints/step-N.tmp-RUN/, renames it to checkpoints/step-N when all ranks are done, replaces
// `latest`, removes what is beyond `keep` (0: nothing). Any rank's failure is a CollectiveError on all, and leaves what
// was there.
std::filesystem::path save_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                      const RunState& state, std::span<const StateTensor> tensors, std::int64_t keep);

// The newest complete checkpoint in a run's checkpoints folder, or none. Not collective; reads manifests and the sizes
// of files only. What is passed over and why is appended to `skipped`.
std::optional<CheckpointInfo> find_newest_checkpoint(const std::filesystem::path& checkpoints,
                                                     std::vector<std::string>* skipped = nullptr);
// The same, collective, and every file is read and hashed, the work shared by the ranks: what it gives can be loaded.
// All ranks get the same answer.
std::optional<CheckpointInfo> find_newest_sound_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                                           std::vector<std::string>* skipped = nullptr);
// Reads the manifest of a step folder. Throws Error(Data) naming what is wrong.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& step_folder);

// Fills the tensors (every one must be in the checkpoint with that shape; Error(Data) names the first that is not, and
// the file). Sizes and hashes of the files read are checked. Not collective: call inside collectively().
void load_tensors(const std::filesystem::path& step_folder, std::span<const StateTensor> tensors);

}  // namespace switchyard
