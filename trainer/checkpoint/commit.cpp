#include "trainer/checkpoint/commit.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace switchyard::checkpoint {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

bool is_real_folder(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() == fs::file_type::directory;
}

// What names a folder as ours goes last, so that a removal that was cut short is taken up again.
void remove_folder(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename() != manifest_name && entry->path().filename() != marker_name) {
      entries.push_back(entry->path());
    }
  }
  for (const fs::path& entry : entries) fs::remove_all(entry, error);
  fs::remove(folder / manifest_name, error);
  fs::remove(folder / marker_name, error);
  fs::remove(folder, error);
}

// Ours to remove: empty, or marked, or with a manifest; and no living writer holds the marker.
bool is_ours_and_dead(const fs::path& folder) {
  std::error_code error;
  if (!is_real_folder(folder)) return false;
  const FileDescriptor marker(::open((folder / marker_name).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (marker.get() >= 0) return ::flock(marker.get(), LOCK_EX | LOCK_NB) == 0;
  return fs::is_empty(folder, error) || is_there(folder / manifest_name);
}

// False where the file system cannot do it.
bool swap_names(const fs::path& one, const fs::path& other) {
  if (::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) fail_errno(ErrorKind::Runtime, "cannot replace", other);
  return false;
}

// Out of sight at once, then off the disk at leisure.
void throw_away(const fs::path& folder) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const fs::path trash = folder.parent_path() / trash_folder_name(folder.filename().string(), attempt);
    if (is_there(trash)) continue;
    rename_path(folder, trash);
    sync_folder(folder.parent_path());
    remove_folder(trash);
    return;
  }
}

}  // namespace

fs::path temporary_folder(const fs::path& checkpoints, std::int64_t step, const std::string& run_id) {
  return checkpoints / temporary_folder_name(step, run_id);
}

void check_temporary_folder(const fs::path& folder) {
  // Listing the parent makes a network file system look at the server.
  std::error_code error;
  for (fs::directory_iterator entry(folder.parent_path(), error), end; !error && entry != end; entry.increment(error)) {
  }
  if (!is_there(folder / marker_name)) {
    fail(ErrorKind::Runtime,
         "{} was made by rank 0 and is not seen here: checkpoints need a folder that all hosts share", folder.string());
  }
}

TemporaryFolder::TemporaryFolder(const fs::path& checkpoints, std::int64_t step, const std::string& run_id)
    : TemporaryFolder(checkpoints / step_folder_name(step), run_id) {
  clear_leavings(checkpoints);  // but this one, whose marker is locked
}

TemporaryFolder::TemporaryFolder(const fs::path& final_path, const std::string& run_id)
    : path_(final_path.parent_path() / temporary_folder_name(final_path.filename().string(), run_id)),
      final_path_(final_path) {
  const fs::path parent = final_path.parent_path();
  std::error_code error;
  const bool created = fs::create_directories(parent, error);
  if (error) fail(ErrorKind::Runtime, "cannot create the folder {}: {}", parent.string(), error.message());
  if (created) sync_folder(fs::absolute(parent).parent_path());
  if (is_ours_and_dead(path_)) remove_folder(path_);
  if (is_there(path_)) {
    fail(ErrorKind::Runtime, "{} is in the way: another process is writing it, or it is no checkpoint", path_.string());
  }
  if (is_there(final_path_) && !is_ours_and_dead(final_path_)) {
    fail(ErrorKind::Runtime, "{} is in the way: it is no checkpoint, so it is not replaced", final_path_.string());
  }
  if (::mkdir(path_.c_str(), 0777) != 0) fail_errno(ErrorKind::Runtime, "cannot create the folder", path_);
  try {
    // The marker is for the living only, so it need not outlast a power cut: nothing here waits for the disk.
    write_new_file(path_ / marker_name, fmt::format("run {}, process {}\n", run_id, ::getpid()), /*durable=*/false);
    marker_ = FileDescriptor(::open((path_ / marker_name).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (marker_.get() < 0) fail_errno(ErrorKind::Runtime, "cannot open", path_ / marker_name);
    // Without locks (some network file systems) saving works all the same.
    if (::flock(marker_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      fail(ErrorKind::Runtime, "{} is being written by another process", path_.string());
    }
  } catch (...) {
    remove_folder(path_);
    throw;
  }
}

TemporaryFolder::~TemporaryFolder() {
  if (!path_.empty()) remove_folder(path_);
}

fs::path TemporaryFolder::publish(const std::function<void(const char* point)>& passed) {
  sync_folder(path_);
  bool swapped = false;  // path_ is then the folder whose place was taken
  if (!is_there(final_path_)) {
    rename_path(path_, final_path_);
  } else if (swap_names(path_, final_path_)) {
    swapped = true;
  } else {
    // A file system that cannot swap two names: for a moment the step has no folder, and those before it stand.
    throw_away(final_path_);
    rename_path(path_, final_path_);
  }
  try {
    passed("checkpoint: renamed");
    sync_folder(final_path_.parent_path());
  } catch (...) {
    // It might not outlast a power cut, and is told of as not saved: then it must not be found here either.
    if (swapped) {
      swap_names(path_, final_path_);
    } else {
      std::error_code error;
      fs::rename(final_path_, path_, error);
    }
    throw;
  }
  // From here on the checkpoint is committed, and nothing may fail the save.
  std::error_code error;
  fs::remove(final_path_ / marker_name, error);
  if (swapped) remove_folder(path_);
  path_.clear();
  return final_path_;
}

void require_free_space(const fs::path& folder, std::int64_t bytes) {
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) fail_errno(ErrorKind::Runtime, "cannot learn the free space of", folder);
  const auto free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  if (free < static_cast<double>(bytes)) {
    fail(ErrorKind::Runtime, "a checkpoint needs {} and {} has {} free; make room, or keep fewer with checkpoint.keep",
         human_bytes(bytes), folder.string(), human_bytes(static_cast<std::int64_t>(free)));
  }
}

void clear_leavings(const fs::path& checkpoints) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator entry(checkpoints, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (is_temporary_folder_name(name) || is_trash_folder_name(name)) found.push_back(entry->path());
  }
  for (const fs::path& folder : found) {
    if (is_ours_and_dead(folder)) remove_folder(folder);
  }
}

void retire_old(const fs::path& checkpoints, const Retention& retention) {
  if (retention.keep <= 0) return;
  const auto spared = [&](const Candidate& candidate) {
    std::error_code error;
    return (retention.pin_every > 0 && candidate.step % retention.pin_every == 0) ||
           is_there(candidate.path / pin_name) ||
           std::any_of(retention.spared.begin(), retention.spared.end(), [&](const fs::path& path) {
             return path == candidate.path || fs::equivalent(path, candidate.path, error);
           });
  };
  std::int64_t kept = 0;
  for (const Candidate& candidate : step_folders(checkpoints)) {  // newest first
    if (!looks_complete(candidate)) continue;
    if (++kept > retention.keep && !spared(candidate)) throw_away(candidate.path);
  }
}

}  // namespace switchyard::checkpoint
