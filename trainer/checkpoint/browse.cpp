#include "trainer/checkpoint/browse.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <system_error>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Without a slash at the end, so that filename() and parent_path() mean what they say.
fs::path tidy(const fs::path& path) {
  if (!fs::is_directory(path)) {
    fail(ErrorKind::Usage, "{} is no folder: a checkpoint is a run's folder or one of its step folders", path.string());
  }
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool is_step_folder(const fs::path& path) {
  std::error_code error;
  return checkpoint::step_of_folder_name(path.filename().string()) ||
         fs::exists(path / checkpoint::manifest_name, error);
}

// Where the step folders of a run's folder lie, or of a folder that holds them itself.
fs::path checkpoints_of(const fs::path& path) {
  std::error_code error;
  const fs::path below = path / "checkpoints";
  return fs::is_directory(below, error) ? below : path;
}

fs::path run_of(const fs::path& checkpoints) {
  const fs::path named = checkpoints.filename() == "." ? fs::absolute(checkpoints).parent_path() : checkpoints;
  if (named.filename() != "checkpoints") return named;
  return named.has_parent_path() ? named.parent_path() : fs::path(".");
}

StepListing look_at(const fs::path& step_folder) {
  StepListing listing;
  listing.path = step_folder;
  try {
    checkpoint::check_is_folder(step_folder);
    const checkpoint::Manifest manifest = checkpoint::read_manifest(step_folder);
    listing.info = checkpoint::info_of(step_folder, manifest);
    listing.files = isize(manifest.files.size());
    checkpoint::check_complete(step_folder, manifest);
  } catch (const Error& error) {
    listing.problem = error.what();
  }
  return listing;
}

RunListing listing_of(const fs::path& checkpoints) {
  RunListing listing{run_of(checkpoints), {}, {}};
  for (const auto& candidate : checkpoint::step_folders(checkpoints)) {
    listing.checkpoints.push_back(look_at(candidate.path));
  }
  std::error_code error;
  for (fs::directory_iterator entry(checkpoints, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (checkpoint::is_temporary_folder_name(name) || checkpoint::is_trash_folder_name(name)) {
      listing.leavings.push_back(entry->path());
    }
  }
  std::sort(listing.leavings.begin(), listing.leavings.end());
  return listing;
}

bool is_empty(const RunListing& listing) {
  return listing.checkpoints.empty() && listing.leavings.empty();
}

}  // namespace

std::vector<RunListing> list_runs(const fs::path& path) {
  const fs::path folder = tidy(path);
  if (is_step_folder(folder)) {
    const fs::path parent = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
    return {{run_of(parent), {look_at(folder)}, {}}};
  }
  std::vector<RunListing> runs;
  runs.push_back(listing_of(checkpoints_of(folder)));
  if (!is_empty(runs.front())) return runs;
  runs.clear();
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code status;
    if (!entry->is_directory(status)) continue;
    RunListing listing = listing_of(checkpoints_of(entry->path()));
    if (!is_empty(listing)) runs.push_back(std::move(listing));
  }
  std::sort(runs.begin(), runs.end(), [](const RunListing& a, const RunListing& b) { return a.run < b.run; });
  return runs;
}

std::vector<fs::path> step_folders_of(const fs::path& path) {
  const fs::path folder = tidy(path);
  if (is_step_folder(folder)) return {folder};
  std::vector<fs::path> folders;
  for (const auto& candidate : checkpoint::step_folders(checkpoints_of(folder))) folders.push_back(candidate.path);
  if (folders.empty()) fail(ErrorKind::Usage, "{} holds no checkpoint", path.string());
  return folders;
}

fs::path one_step_folder(const fs::path& path, std::vector<std::string>* skipped) {
  const fs::path folder = tidy(path);
  if (is_step_folder(folder)) return folder;
  std::vector<std::string> reasons;
  const auto newest = find_newest_checkpoint(checkpoints_of(folder), &reasons);
  if (skipped != nullptr) skipped->insert(skipped->end(), reasons.begin(), reasons.end());
  if (newest) return newest->path;
  std::string text;
  for (const std::string& reason : reasons) text += "; " + reason;
  fail(ErrorKind::Usage, "{} holds no complete checkpoint{}", path.string(), text);
}

}  // namespace switchyard
