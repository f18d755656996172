#include "trainer/checkpoint/find.h"

#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <algorithm>
#include <system_error>

namespace switchyard {
namespace checkpoint {

std::vector<Candidate> step_folders(const std::filesystem::path& checkpoints) {
  std::vector<Candidate> found;
  std::error_code error;
  if (!std::filesystem::exists(checkpoints, error) && !error) return found;
  for (std::filesystem::directory_iterator entry(checkpoints, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto step = step_of_folder_name(entry->path().filename().string());
    if (step) found.push_back({*step, entry->path()});
  }
  // An unreadable folder is not an empty one: taken for that, a run would begin anew over what it holds.
  if (error) fail(ErrorKind::Runtime, "cannot list {}: {}", checkpoints.string(), error.message());
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.step > b.step; });
  return found;
}

void check_is_folder(const std::filesystem::path& path) {
  std::error_code error;
  const auto type = std::filesystem::symlink_status(path, error).type();
  if (type == std::filesystem::file_type::symlink) {
    fail(ErrorKind::Data, "{}: is a symbolic link, which is not followed", path.string());
  }
  if (type != std::filesystem::file_type::directory) {
    fail(ErrorKind::Data, "{}: is no folder, and has the name of a checkpoint", path.string());
  }
}

namespace {

// A folder with a step's name must be that step's; any other name is the user's to choose.
void check_name(const std::filesystem::path& folder, const Manifest& manifest) {
  const auto step = step_of_folder_name(folder.filename().string());
  if (step && manifest.state.step != *step) {
    fail(ErrorKind::Data, "{}: its {} is that of step {}", folder.string(), manifest_name, manifest.state.step);
  }
}

}  // namespace

void check_complete(const std::filesystem::path& step_folder, const Manifest& manifest) {
  check_name(step_folder, manifest);
  for (const FileRecord& file : manifest.files) {
    const std::string fault = fault_of_size(step_folder, file);
    if (!fault.empty()) throw Error(ErrorKind::Data, fault);
  }
}

Manifest read_complete(const Candidate& candidate) {
  check_is_folder(candidate.path);
  Manifest manifest = read_manifest(candidate.path);
  check_complete(candidate.path, manifest);
  return manifest;
}

bool looks_complete(const Candidate& candidate) try {
  read_complete(candidate);
  return true;
} catch (const std::exception&) {
  return false;
}

CheckpointInfo info_of(const std::filesystem::path& step_folder, const Manifest& manifest) {
  CheckpointInfo info{step_folder, manifest.state, manifest.ranks};
  for (const FileRecord& file : manifest.files) info.bytes += file.bytes;
  return info;
}

}  // namespace checkpoint

CheckpointInfo read_checkpoint_info(const std::filesystem::path& step_folder) {
  const checkpoint::Manifest manifest = checkpoint::read_manifest(step_folder);
  checkpoint::check_name(step_folder, manifest);
  return checkpoint::info_of(step_folder, manifest);
}

std::optional<CheckpointInfo> find_newest_checkpoint(const std::filesystem::path& checkpoints,
                                                     std::vector<std::string>* skipped, std::int64_t before) {
  for (const checkpoint::Candidate& candidate : checkpoint::step_folders(checkpoints)) {
    if (candidate.step >= before) continue;
    try {
      return checkpoint::info_of(candidate.path, checkpoint::read_complete(candidate));
    } catch (const Error& error) {
      if (skipped != nullptr) skipped->emplace_back(error.what());
    }
  }
  return std::nullopt;
}

}  // namespace switchyard
