// Whether other programs, which come through HDF5, see the tensors that the manifest tells of.
//
// A checksum says that a file is the one that was written, not that whoever wrote it meant well. So nothing of HDF5
// that leads elsewhere passes: hard links only, contiguous data inside this file, no filter, and the type, the shape
// and the place of the manifest. Only structures are read, no data.
#pragma once

#include "trainer/checkpoint/manifest.h"

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

struct ViewFault {
  const TensorRecord* tensor = nullptr;  // null: the file as a whole
  std::string what;
};
// Of a file whose size and XXH3-128 are those of the manifest (open nothing else with HDF5): what does not agree, at
// most one fault a tensor. HDF5 looks at it in a process of its own, so that a forged file that breaks HDF5 breaks
// nothing else; not for a process that MPI runs in.
std::vector<ViewFault> faults_of_view(const std::filesystem::path& file,
                                      const std::vector<const TensorRecord*>& tensors);
// The same in this process, for fuzzing.
std::vector<ViewFault> faults_of_view_here(const std::filesystem::path& file,
                                           const std::vector<const TensorRecord*>& tensors);

// Of the index, with the same promise: every tensor of the manifest must be a link to its path in its file.
std::vector<ViewFault> faults_of_index(const std::filesystem::path& index, const std::vector<TensorRecord>& tensors);

}  // namespace switchyard::checkpoint
