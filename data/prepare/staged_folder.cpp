#include "data/prepare/staged_folder.h"

#include "comm/base/error.h"
#include "data/loader/durable.h"

#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

void check_replaceable(const fs::path& out, bool replace, const std::function<bool(const std::string&)>& ours) {
  if (!fs::exists(fs::symlink_status(out))) return;
  if (!fs::is_directory(out)) fail(ErrorKind::Usage, "{}: exists and is not a folder", out.string());
  for (const auto& entry : fs::directory_iterator(out)) {
    if (!replace) fail(ErrorKind::Usage, "{}: exists already; --force replaces it", out.string());
    const std::string name = entry.path().filename().string();
    if (!ours(name) || !entry.is_regular_file()) {
      fail(ErrorKind::Usage, "{}: holds {}, which prepare did not write, so it is not replaced", out.string(), name);
    }
  }
}

void clear(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
}

fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() || !path.has_parent_path() ? path : path.parent_path();
}

fs::path with_suffix(fs::path path, const char* suffix) {
  return path += suffix;
}

}  // namespace

StagedFolder::StagedFolder(fs::path out, bool replace, const std::function<bool(const std::string&)>& ours)
    : out_(without_trailing_slash(std::move(out))), staging_(with_suffix(out_, ".partial")) {
  check_replaceable(out_, replace, ours);
  std::error_code error;
  fs::create_directories(staging_, error);
  lock_ = error ? -1 : ::open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) {
    fail(ErrorKind::Usage, "{}: cannot be created: {}", staging_.string(),
         error ? error.message() : std::string(std::strerror(errno)));
  }
  // Some file systems know no locks and say so; two processes writing one folder are then the user's own affair.
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(lock_);
    fail(ErrorKind::Usage, "{}: another process is writing it", staging_.string());
  }
  clear(staging_);
}

StagedFolder::~StagedFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;  // a destructor has nobody to tell
  fs::remove_all(staging_, ignored);
  ::close(lock_);
}

void StagedFolder::commit() {
  sync_folder(staging_);
  // Between the two renames neither folder has OUT's name; a kill there leaves OUT.replaced, whole.
  const fs::path aside = with_suffix(out_, ".replaced");
  const bool replacing = fs::exists(out_) && !fs::is_empty(out_);
  if (replacing) {
    fs::remove_all(aside);
    fs::rename(out_, aside);
  }
  fs::rename(staging_, out_);
  ::close(std::exchange(lock_, -1));
  sync_folder(out_.parent_path());
  if (replacing) fs::remove_all(aside);
}

}  // namespace switchyard
