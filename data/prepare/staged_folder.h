// A folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <functional>

namespace switchyard {

// Files are written to path() = OUT.partial; commit() gives it its name. Left without commit, what was written is
// removed; a killed process leaves OUT.partial behind, which the next one clears away.
class StagedFolder {
 public:
  // `replace`: an existing OUT may be replaced, if `ours` knows every name in it. An empty OUT is always taken over.
  // Throws Error(Usage) where OUT may not be replaced, or another process is writing it.
  StagedFolder(std::filesystem::path out, bool replace, const std::function<bool(const std::string&)>& ours);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return staging_; }
  void commit();

 private:
  std::filesystem::path out_, staging_;
  int lock_ = -1;  // the staging folder itself, held open and locked
};

}  // namespace switchyard
