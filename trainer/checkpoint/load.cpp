// Loading knows no layout: each piece of a tensor that is asked for is found by name and place, in whichever files it
// lies, whatever the pieces that they hold.
#include "comm/group/agree.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace switchyard {
namespace {

using checkpoint::describe;
using checkpoint::FileRecord;
using checkpoint::Manifest;
using checkpoint::TensorRecord;
using checkpoint::WantedPart;

using PartsByFile = std::map<std::string_view, std::vector<WantedPart>>;

bool same_shape(const std::vector<std::int64_t>& found, const Shape& wanted) {
  if (isize(found.size()) != wanted.rank()) return false;
  for (int i = 0; i < wanted.rank(); ++i) {
    if (found[usize(i)] != wanted[i]) return false;
  }
  return true;
}

// By file; throws where a tensor is not there in that shape.
PartsByFile sort_by_file(const std::filesystem::path& folder, const Manifest& manifest,
                         std::span<const StateTensor> tensors) {
  std::map<std::pair<std::string_view, StateKind>, std::vector<const TensorRecord*>> records;
  for (const TensorRecord& record : manifest.tensors) records[{record.name, record.kind}].push_back(&record);
  PartsByFile by_file;
  for (const StateTensor& tensor : tensors) {
    const auto found = records.find({tensor.name, tensor.kind});
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    if (found == records.end()) {
      const std::string path = (folder / checkpoint::manifest_name).string();
      if (!manifest.has_optimizer()) {
        fail(ErrorKind::Data, "{}: holds weights only: it was made for use, and no training can go on from it", path);
      }
      fail(ErrorKind::Data, "{}: has no {}; it is of another model", path, what);
    }
    require(tensor.data != nullptr, "load_tensors: no memory for {}", what);
    for (const TensorRecord* record : found->second) {
      if (!same_shape(record->shape, tensor.shape)) {
        fail(ErrorKind::Data, "{}: {} has the shape [{}], the model wants {}; it is of another model",
             (folder / record->file).string(), what, fmt::join(record->shape, ", "), tensor.shape.to_string());
      }
      const std::int64_t begin = std::max(record->first, tensor.offset);
      const std::int64_t end = std::min(record->first + record->count, tensor.offset + tensor.elements());
      if (begin >= end) continue;
      by_file[record->file].push_back({.record = record,
                                       .first = begin - record->first,
                                       .count = end - begin,
                                       .data = tensor.data + (begin - tensor.offset)});
    }
  }
  return by_file;
}

}  // namespace

void load_tensors(const std::filesystem::path& step_folder, std::span<const StateTensor> tensors) {
  const Manifest manifest = checkpoint::read_manifest(step_folder);
  for (const auto& [name, parts] : sort_by_file(step_folder, manifest, tensors)) {
    checkpoint::read_shard(step_folder, manifest.file(name), parts, /*whole=*/true);
  }
}

void load_checkpoint(const Group& world, const std::filesystem::path& step_folder,
                     std::span<const StateTensor> tensors) {
  collectively(world, "loading the checkpoint", [&] {
    const Manifest manifest = checkpoint::read_manifest(step_folder);
    PartsByFile parts = sort_by_file(step_folder, manifest, tensors);
    for (const FileRecord& file : manifest.files) {
      // Every file is read whole by one rank: on the layout that wrote it, by the rank that wants all of it.
      const bool whole = file.rank % world.size() == world.rank().value();
      const auto wanted = parts.find(file.name);
      if (whole || wanted != parts.end()) {
        checkpoint::read_shard(step_folder, file, wanted == parts.end() ? std::vector<WantedPart>() : wanted->second,
                               whole);
      }
    }
  });
}

}  // namespace switchyard
