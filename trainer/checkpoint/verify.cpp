#include "trainer/checkpoint/verify.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

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

std::vector<DamagedFile> verify_checkpoint(const std::filesystem::path& step_folder) {
  return checkpoint::verify_files(step_folder, checkpoint::read_manifest(step_folder), 0, 1);
}

namespace checkpoint {

std::vector<DamagedFile> verify_files(const std::filesystem::path& step_folder, const Manifest& manifest, int part,
                                      int parts) {
  std::vector<DamagedFile> damaged;
  for (std::size_t i = static_cast<std::size_t>(part); i < manifest.files.size();
       i += static_cast<std::size_t>(parts)) {
    const FileRecord& file = manifest.files[i];
    std::vector<const TensorRecord*> tensors;
    for (const TensorRecord& tensor : manifest.tensors) {
      if (tensor.file == file.name) tensors.push_back(&tensor);
    }
    try {
      const FileFault fault = fault_of_file(step_folder, file, tensors);
      if (fault.what.empty()) continue;
      damaged.push_back({file.name, to_text(step_folder / file.name, fault), {}});
      for (const TensorRecord* tensor : fault.tensors) {
        damaged.back().tensors.push_back({tensor->name, tensor->kind, tensor->owner});
      }
    } catch (const Error& error) {  // cannot be opened or read at all
      damaged.push_back({file.name, error.what(), {}});
      for (const TensorRecord* tensor : tensors) {
        damaged.back().tensors.push_back({tensor->name, tensor->kind, tensor->owner});
      }
    }
  }
  return damaged;
}

}  // namespace checkpoint
}  // namespace switchyard
