#include "trainer/checkpoint/verify.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/hdf5_gate.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <map>
#include <string_view>
#include <utility>

namespace switchyard {

std::vector<CheckpointListing> list_checkpoints(const std::filesystem::path& checkpoints) {
  std::vector<CheckpointListing> listings;
  for (const checkpoint::Candidate& candidate : checkpoint::step_folders(checkpoints)) {
    CheckpointListing listing{candidate.path, std::nullopt, ""};
    try {
      listing.info = read_checkpoint_info(candidate.path);
      checkpoint::read_complete(candidate);
    } catch (const Error& error) {
      listing.problem = error.what();
    }
    listings.push_back(std::move(listing));
  }
  return listings;
}

namespace {

using checkpoint::FileFault;
using checkpoint::FileRecord;
using checkpoint::Manifest;
using checkpoint::TensorRecord;

DamagedFile damage_of(const std::filesystem::path& path, const FileFault& fault) {
  DamagedFile damaged{path.filename().string(), checkpoint::to_text(path, fault), {}};
  for (const TensorRecord* tensor : fault.tensors) {
    damaged.tensors.push_back({tensor->name, tensor->kind, tensor->owner});
  }
  return damaged;
}

std::optional<DamagedFile> verify_file(const std::filesystem::path& folder, const FileRecord& file,
                                       const std::vector<const TensorRecord*>& tensors) {
  const std::filesystem::path path = folder / file.name;
  try {
    FileFault fault = checkpoint::fault_of_file(folder, file, tensors);
    if (!fault.what.empty()) return damage_of(path, fault);
    if (tensors.empty()) return std::nullopt;  // the index, which has only links
    for (const checkpoint::ViewFault& view : checkpoint::faults_of_view(path, tensors)) {
      if (fault.what.empty())
        fault.what = "its bytes are those that were written, and HDF5 shows another thing: " + view.what;
      if (view.tensor != nullptr) fault.tensors.push_back(view.tensor);
    }
    if (fault.what.empty()) return std::nullopt;
    return damage_of(path, fault);
  } catch (const Error& error) {  // cannot be opened or read at all
    DamagedFile damaged = damage_of(path, {"", tensors});
    damaged.text = error.what();
    return damaged;
  }
}

}  // namespace

std::vector<DamagedFile> verify_checkpoint(const std::filesystem::path& step_folder) {
  const Manifest manifest = checkpoint::read_manifest(step_folder);
  std::map<std::string_view, std::vector<const TensorRecord*>> tensors;
  for (const TensorRecord& tensor : manifest.tensors) tensors[tensor.file].push_back(&tensor);
  std::vector<DamagedFile> damaged;
  for (const FileRecord& file : manifest.files) {
    if (auto found = verify_file(step_folder, file, tensors[file.name])) damaged.push_back(std::move(*found));
  }
  return damaged;
}

}  // namespace switchyard
