// The folders of a checkpoint's life: written as step-N.tmp-RUN, made true by one rename, removed by way of .trash-*.
// Killed at any instant, what is left is the old state or the new one, and leavings that the next save clears away.
#pragma once

#include "trainer/checkpoint/files.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

std::filesystem::path temporary_folder(const std::filesystem::path& checkpoints, std::int64_t step,
                                       const std::string& run_id);
// Throws Error(Runtime) where a rank does not see the folder that rank 0 has made: the hosts share no file system.
void check_temporary_folder(const std::filesystem::path& folder);

// The folder of a save in progress; gone when this goes, unless it was published. Its marker file is held locked, so
// that another process can tell a save that lives from the remains of one that died.
class TemporaryFolder {
 public:
  // A step of a run: creates checkpoints/ where needed, and clears away what earlier saves left there.
  TemporaryFolder(const std::filesystem::path& checkpoints, std::int64_t step, const std::string& run_id);
  // One that is to be `final_path`, whatever its name; only what was left of the same attempt is cleared away.
  TemporaryFolder(const std::filesystem::path& final_path, const std::string& run_id);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // fsyncs it, renames it to its final path (taking the place of one that is there) and fsyncs the parent; gives the
  // new path. `passed` hears of the point between the rename and its fsync.
  std::filesystem::path publish(const std::function<void(const char* point)>& passed);

 private:
  std::filesystem::path path_;
  std::filesystem::path final_path_;
  FileDescriptor marker_;
};

// Throws Error(Runtime), with the figures, where the disk has less than `bytes` free.
void require_free_space(const std::filesystem::path& folder, std::int64_t bytes);

// Removes what earlier saves left behind when they were killed: folders with our kind of name that hold our marker or
// our manifest (or nothing), and whose writer is gone. Everything else is left alone.
void clear_leavings(const std::filesystem::path& checkpoints);

struct Retention {
  std::int64_t keep = 0;                      // the newest complete checkpoints; 0: all
  std::int64_t pin_every = 0;                 // and those whose step is a multiple; 0: none
  std::vector<std::filesystem::path> spared;  // and these
};
// Removes the other complete checkpoints, but none in which somebody has put a file named `pinned`; broken ones are
// left for people to look at.
void retire_old(const std::filesystem::path& checkpoints, const Retention& retention);

}  // namespace switchyard::checkpoint
