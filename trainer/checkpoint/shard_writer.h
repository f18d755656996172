// One HDF5 file of a checkpoint being written: each tensor one contiguous dataset of little-endian float32, in one
// write.
#pragma once

#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/manifest.h"

#include <filesystem>
#include <vector>

namespace switchyard::checkpoint {

// What the datasets take on disk, structures included, rounded up generously.
std::int64_t shard_bytes(const std::vector<const StateTensor*>& tensors);

class ShardWriter {
 public:
  ShardWriter(const std::filesystem::path& folder, const std::string& name, const RunState& state,
              std::int64_t reserve);

  // The tensor is hashed as it lies in memory, before anything is written.
  void add(const StateTensor& tensor);
  // Brings the file to the disk. The tensors' records are then complete.
  FileRecord finish(int rank);
  const std::vector<TensorRecord>& tensors() const { return tensors_; }

 private:
  std::string name_;
  Hdf5File file_;
  std::vector<TensorRecord> tensors_;
};

}  // namespace switchyard::checkpoint
