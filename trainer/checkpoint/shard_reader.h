// One file of a checkpoint, read by the manifest alone: every tensor's bytes have their place in the file and their
// checksum there, so HDF5's own structures, which may be damaged or hostile, are never followed. Whether other programs
// see the same through HDF5 is for hdf5_gate.h.
#pragma once

#include "trainer/checkpoint/files.h"
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
// Reads the file once and compares its hash and those of the tensors given. Throws Error(Data) where it cannot be read.
FileFault fault_of_file(const std::filesystem::path& folder, const FileRecord& file,
                        std::vector<const TensorRecord*> tensors);
// "…/experts-00000-of-00002.h5: its XXH3-128 is …; damaged: layer 3 expert 17 (…) and 2 more".
std::string to_text(const std::filesystem::path& file, const FileFault& fault);

// Elements [first, first + count) of a record, counted from the record's own beginning, and where they go.
struct WantedPart {
  const TensorRecord* record = nullptr;
  std::int64_t first = 0;
  std::int64_t count = 0;
  float* data = nullptr;
};
// Fills the parts, reading the file once and straight into their memory. whole: reads all of the file and compares its
// XXH3-128; otherwise only the records of the parts are read, and their XXH3-64 compared. Throws Error(Data), naming
// what is damaged; the memory has then no meaning.
void read_shard(const std::filesystem::path& folder, const FileRecord& file, std::vector<WantedPart> parts, bool whole);

Hash128 hash128_of_file(const FileDescriptor& file, const std::filesystem::path& path);

}  // namespace switchyard::checkpoint
