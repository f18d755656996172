// One HDF5 file of a checkpoint being written: each tensor one contiguous dataset of little-endian float32.
//
// HDF5 makes the file with every dataset in its place and nothing in them; the bytes then go straight from memory to
// their places, in the file's order, and are hashed on the way. So nothing is read back, what is hashed is what the
// memory held, and any tensor may come in pieces of any size.
#pragma once

#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/manifest.h"

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

// What the file takes on disk, HDF5's structures included, rounded up generously.
std::int64_t shard_bytes(const std::vector<TensorRecord>& tensors);

class ShardWriter {
 public:
  // Creates the file, which must not exist, and asks the disk for its room. `tensors` are made by record_of(); they are
  // put into the order of their bytes.
  ShardWriter(const std::filesystem::path& folder, const std::string& name, const RunState& state,
              std::vector<TensorRecord> tensors);

  // What write() wants, in this order; offset is known from the start, hash once the last byte was written.
  const std::vector<TensorRecord>& tensors() const { return tensors_; }
  // The next bytes of the tensor that is due; not beyond its end.
  void write(const void* data, std::int64_t bytes);
  // Brings the file to the disk. All tensors have been written.
  FileRecord finish(int rank);

 private:
  void hash_up_to(std::int64_t end);  // HDF5's own bytes, between the tensors

  std::filesystem::path path_;
  std::string name_;
  std::vector<TensorRecord> tensors_;
  FileDescriptor file_;
  std::int64_t size_ = 0;
  std::int64_t at_ = 0;       // everything before this offset is written and hashed
  std::int64_t started_ = 0;  // and everything before this one is on its way to the disk
  std::size_t due_ = 0;       // place of the tensor to be written next
  Hash128Stream file_hash_;
  Hash64Stream tensor_hash_;
};

}  // namespace switchyard::checkpoint
