// manifest.json: what a checkpoint is, and what every byte of it must be.
//
// The first line holds the format's name, its version and the XXH3-128 of all that follows, so that one flipped bit
// anywhere in the manifest is told, be it in a number or in the config's text.
#pragma once

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hash.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::checkpoint {

inline constexpr std::int64_t format_version = 1;
inline constexpr std::int64_t max_manifest_bytes = std::int64_t{1} << 30;

struct FileRecord {
  std::string name;
  std::int64_t bytes = 0;
  Hash128 hash;
  int rank = 0;  // that wrote it
};

struct TensorRecord {
  std::string name;
  StateKind kind = StateKind::Weight;
  Owner owner;
  std::vector<std::int64_t> shape;  // of the whole tensor, float32
  // ZeRO-1 leaves pieces of a moment in the files of several ranks: this is elements [first, first + count) of the
  // tensor in row-major order.
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::string file;
  std::string path;         // of the dataset in the file
  std::int64_t offset = 0;  // of its first byte in the file: a tensor can be checked without HDF5
  std::uint64_t hash = 0;

  std::int64_t size() const;  // elements of the whole tensor
  bool whole() const { return count == size(); }
  std::int64_t bytes() const { return count * std::int64_t{sizeof(float)}; }
};
// What `tensor` is to be in `file`; its place and its hash are still to be known.
TensorRecord record_of(const StateTensor& tensor, const std::string& file);

struct Manifest {
  RunState state;
  std::int64_t ranks = 0;
  std::vector<FileRecord> files;
  std::vector<TensorRecord> tensors;

  const FileRecord& file(std::string_view name) const;  // is known to be there
  bool has_optimizer() const;                           // false: weights alone, as reshard --drop-optimizer leaves them
};

std::string to_text(const Manifest& manifest);
// Every field's presence, type and range is checked, that files and tensors fit together, and that the pieces of a
// tensor make it up. Throws Error(Data) that begins with `where`.
Manifest parse_manifest(std::string_view text, const std::string& where);
Manifest read_manifest(const std::filesystem::path& step_folder);

// What one rank wrote, as it travels to rank 0.
std::string part_to_text(const std::vector<FileRecord>& files, const std::vector<TensorRecord>& tensors);
void parse_part(std::string_view text, const std::string& where, Manifest& into);

}  // namespace switchyard::checkpoint
