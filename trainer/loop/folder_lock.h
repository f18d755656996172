// One job a folder: two that write into one run's folder would undo each other's work.
#pragma once

#include "comm/base/handle.h"
#include "trainer/checkpoint/files.h"

#include <filesystem>
#include <string>

namespace switchyard {

// Held as long as it lives, and by nothing that outlives the process: a lock of the system's on OUT/.running, which
// names the job that holds it.
class FolderLock {
 public:
  // Creates the folder where needed. Throws Error(Usage), naming the owner, where another job has it. Where the file
  // system has no locks, it warns and goes on.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  std::filesystem::path path_;
  checkpoint::FileDescriptor file_;
};

}  // namespace switchyard
