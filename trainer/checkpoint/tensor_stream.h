// A tensor's bytes from their place in a file, a piece at a time and hashed on the way: what any size of tensor needs
// is a few MiB of memory, and no HDF5.
#pragma once

#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/manifest.h"

#include <filesystem>
#include <functional>
#include <span>

namespace switchyard::checkpoint {

inline constexpr std::int64_t stream_piece_bytes = std::int64_t{1} << 20;

// One file of a checkpoint, of the size that its manifest says.
class TensorSource {
 public:
  // Throws Error(Data).
  TensorSource(const std::filesystem::path& folder, const FileRecord& file);

  // Gives the elements in order, a piece at a time. Throws Error(Data), after the last piece, where their hash is not
  // the manifest's: what was done with them must then be undone.
  void read(const TensorRecord& tensor, const std::function<void(std::span<const float>)>& use);

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::vector<float> piece_;
};

}  // namespace switchyard::checkpoint
