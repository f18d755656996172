// Loading knows no layout: each tensor asked for is found by name, in whichever file it lies.
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace switchyard {
namespace {

using checkpoint::describe;
using checkpoint::Manifest;
using checkpoint::TensorRecord;

struct Wanted {
  std::vector<const TensorRecord*> records;
  std::vector<float*> data;
};

bool same_shape(const std::vector<std::int64_t>& found, const Shape& wanted) {
  if (isize(found.size()) != wanted.rank()) return false;
  for (int i = 0; i < wanted.rank(); ++i) {
    if (found[usize(i)] != wanted[i]) return false;
  }
  return true;
}

// By file; throws where a tensor is not there in that shape.
std::map<std::string, Wanted> sort_by_file(const std::filesystem::path& folder, const Manifest& manifest,
                                           std::span<const StateTensor> tensors) {
  std::map<std::pair<std::string_view, StateKind>, const TensorRecord*> records;
  for (const TensorRecord& record : manifest.tensors) records[{record.name, record.kind}] = &record;
  std::map<std::string, Wanted> by_file;
  for (const StateTensor& tensor : tensors) {
    const auto found = records.find({tensor.name, tensor.kind});
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    if (found == records.end()) {
      fail(ErrorKind::Data, "{}: has no {}; it is of another model", (folder / checkpoint::manifest_name).string(),
           what);
    }
    const TensorRecord& record = *found->second;
    if (!same_shape(record.shape, tensor.shape)) {
      fail(ErrorKind::Data, "{}: {} has the shape [{}], the model wants {}; it is of another model",
           (folder / record.file).string(), what, fmt::join(record.shape, ", "), tensor.shape.to_string());
    }
    require(tensor.data != nullptr, "load_tensors: no memory for {}", what);
    Wanted& wanted = by_file[record.file];
    wanted.records.push_back(&record);
    wanted.data.push_back(tensor.data);
  }
  return by_file;
}

}  // namespace

void load_tensors(const std::filesystem::path& step_folder, std::span<const StateTensor> tensors) {
  const Manifest manifest = checkpoint::read_manifest(step_folder);
  for (const auto& [name, wanted] : sort_by_file(step_folder, manifest, tensors)) {
    const checkpoint::ShardReader reader(step_folder, manifest.file(name), wanted.records);
    for (std::size_t i = 0; i < wanted.records.size(); ++i) reader.read(*wanted.records[i], wanted.data[i]);
  }
}

}  // namespace switchyard
