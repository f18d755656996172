// What is known of a run's checkpoints, for people and programs that look at them (`switchyard checkpoint ls`,
// `verify`).
#pragma once

#include "trainer/checkpoint/checkpoint.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct CheckpointListing {
  std::filesystem::path path;
  std::optional<CheckpointInfo> info;  // where the manifest can be read
  std::string problem;                 // empty: manifest and file sizes are right
};
// Newest first. Reads manifests and sizes only.
std::vector<CheckpointListing> list_checkpoints(const std::filesystem::path& checkpoints);

struct DamagedTensor {
  std::string name;
  StateKind kind = StateKind::Weight;
  Owner owner;
};
struct DamagedFile {
  std::string file;
  std::string text;                    // path, what is wrong, and the first of the tensors
  std::vector<DamagedTensor> tensors;  // whose bytes are not those that were written; none: HDF5's own structures
};
// Reads every file of a checkpoint and names what is damaged: bytes that are not those that were written, and bytes
// that are, but that HDF5 shows to other programs as something else than the manifest does. Throws Error(Data) where
// the manifest itself is.
std::vector<DamagedFile> verify_checkpoint(const std::filesystem::path& step_folder);

}  // namespace switchyard
