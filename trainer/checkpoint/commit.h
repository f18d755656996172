// The folders of a checkpoint's life: written as step-N.tmp-RUN, made true by one rename, removed by way of .trash-*.
// Killed at any instant, what is left is the old state or the new one, and leavings that the next save clears away.
#pragma once

#include "trainer/checkpoint/files.h"

#include <cstdint>
#include <filesystem>
#include <string>

namespace switchyard::checkpoint {

std::filesystem::path temporary_folder(const std::filesystem::path& checkpoints, std::int64_t step,
                                       const std::string& run_id);
// Throws Error(Runtime) where a rank does not see the folder that rank 0 has made: the hosts share no file system.
void check_temporary_folder(const std::filesystem::path& folder);

// The folder of a save in progress; gone when this goes, unless it was published. Its marker file is held locked, so
// that another process can tell a save that lives from the remains of one that died.
class TemporaryFolder {
 public:
  // Creates checkpoints/ where needed.
  TemporaryFolder(const std::filesystem::path& checkpoints, std::int64_t step, const std::string& run_id);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // fsyncs it, renames it to step-N (taking the place of one that is there) and fsyncs the parent; gives the new path.
  std::filesystem::path publish();

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

// Keeps the `keep` newest complete checkpoints (0: all) and `just_written`, whatever its step; broken ones are left for
// people to look at.
void retire_old(const std::filesystem::path& checkpoints, std::int64_t keep, const std::filesystem::path& just_written);

}  // namespace switchyard::checkpoint
