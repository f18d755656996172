// Saving and loading the whole state of a run, whatever the layout that wrote it.
//
//   checkpoints/latest                a hint: the name of the newest step folder; replaced atomically, never trusted
//   checkpoints/step-00000400/
//     manifest.json                   the truth: run, step, cursor, config, and every file and tensor with its hash
//     index.h5                        one view of everything for h5py, h5ls, HDFView; never read on resume
//     replicated-00000-of-00004.h5    /embed_tokens/weight, /layers/3/self_attn/q_proj/weight, ...
//     experts-00000-of-00004.h5       /layers/3/experts/17/{w_gate,w_up,w_down}; a file for each rank that writes
//     pinned                          put there by people: retention then leaves the folder alone
//
// A parameter's name with slashes for dots is its path. Beside the weights lie Adam's moments, one group a parameter:
// /optimizer/layers/3/experts/17/w_gate/{m,v}. With ZeRO-1 a moment may be cut: then m and v are groups of pieces,
// named by their first elements, m/from-0, m/from-65536.
#pragma once

#include "comm/base/numerics.h"
#include "comm/group/group.h"
#include "layers/tensor/parameter.h"

#include <cstdint>
#include <filesystem>
#include <limits>
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
  std::int64_t step = 0;     // steps done
  std::int64_t updates = 0;  // steps whose update was applied (bias correction counts these)
  std::int64_t skipped = 0;  // steps whose update was left out
  // Of these, how many stand in a row at the end, by cause.
  std::int64_t not_finite_in_a_row = 0;
  std::int64_t spikes_in_a_row = 0;
  std::int64_t tokens = 0;       // trained on
  std::int64_t next_sample = 0;  // data cursor: global index of the next sequence
  std::int64_t epoch = 0;        // in which that one lies; for people
  std::uint64_t seed = 0;
  std::vector<double> spike_losses;  // what the guard against loss spikes looks back on, oldest first
  std::uint64_t digest = 0;          // of all parameters
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

// Collective, and done when it returns (see saver.h for saving beside the training). Writes
// checkpoints/step-N.tmp-RUN/, renames it to checkpoints/step-N when all ranks are done, replaces `latest`, removes
// what is beyond `keep` (0: nothing). Any rank's failure is a CollectiveError on all, and leaves what was there.
std::filesystem::path save_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                      const RunState& state, std::span<const StateTensor> tensors, std::int64_t keep);

// The newest complete checkpoint in a run's checkpoints folder before step `before`, or none. Not collective; reads
// manifests and the sizes of files only: loading it checks the rest. What is passed over and why is appended to
// `skipped`.
std::optional<CheckpointInfo> find_newest_checkpoint(const std::filesystem::path& checkpoints,
                                                     std::vector<std::string>* skipped = nullptr,
                                                     std::int64_t before = std::numeric_limits<std::int64_t>::max());
// Reads the manifest of a step folder. Throws Error(Data) naming what is wrong.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& step_folder);

// Fills the tensors, which may be pieces; every one must be in the checkpoint with that shape, in whatever pieces:
// Error(Data) names the first that is not, and the file. Every file that is read is read whole, once, and its size and
// hash are checked. Not collective.
void load_tensors(const std::filesystem::path& step_folder, std::span<const StateTensor> tensors);
// The same, collective: every file of the checkpoint is checked by one of the ranks, and each reads of the others what
// it needs. Any rank's failure is a CollectiveError on all.
void load_checkpoint(const Group& world, const std::filesystem::path& step_folder,
                     std::span<const StateTensor> tensors);

}  // namespace switchyard
