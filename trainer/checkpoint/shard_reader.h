// One HDF5 file of a checkpoint, opened only once its size and its XXH3-128 are those of the manifest.
//
// A checksum says that a file is the one that was written, not that whoever wrote it meant well. So nothing of HDF5
// that leads elsewhere is followed: hard links only, contiguous data inside this file, no filter, the type and shape of
// the manifest.
#pragma once

#include "trainer/checkpoint/hdf5_handle.h"
#include "trainer/checkpoint/manifest.h"

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

// Whether the file is there, a plain one, and of the manifest's size; empty, or what is wrong.
std::string fault_of_size(const std::filesystem::path& folder, const FileRecord& file);

// What is wrong with a whole file, and which of its tensors it touches.
struct FileFault {
  std::string what;                          // empty: nothing
  std::vector<const TensorRecord*> tensors;  // whose bytes are not those that were written
};
// Reads the file once; where the hash differs, each tensor given is checked too, from its place in the file.
FileFault fault_of_file(const std::filesystem::path& folder, const FileRecord& file,
                        const std::vector<const TensorRecord*>& tensors);
// "…/experts-00000-of-00002.h5: its XXH3-128 is …; damaged: layer 3 expert 17 (…) and 2 more".
std::string to_text(const std::filesystem::path& file, const FileFault& fault);

class ShardReader {
 public:
  // `wanted`: the tensors that will be read, for the message. Throws Error(Data).
  ShardReader(const std::filesystem::path& folder, const FileRecord& file,
              const std::vector<const TensorRecord*>& wanted);
  // data: room for the record's elements. Throws Error(Data).
  void read(const TensorRecord& tensor, float* data) const;

 private:
  std::filesystem::path path_;
  Hdf5Handle file_;
};

}  // namespace switchyard::checkpoint
