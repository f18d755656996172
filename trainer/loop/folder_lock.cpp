#include "trainer/loop/folder_lock.h"

#include "comm/base/ids.h"
#include "comm/base/log.h"
#include "comm/group/environment.h"

#include <cerrno>
#include <chrono>

#include <fcntl.h>
#include <fmt/chrono.h>
#include <sys/file.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string owner_in(const checkpoint::FileDescriptor& file, const fs::path& path) {
  std::string text(512, '\0');
  text.resize(usize(checkpoint::read_at(file, path, text.data(), isize(text.size()), 0)));
  text.resize(std::min(text.size(), text.find('\n')));
  return text.empty() ? "a job that has just begun" : text;
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder) : path_(folder / ".running") {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(ErrorKind::Runtime, "cannot create the folder {}: {}", folder.string(), error.message());
  // The file is never removed: whoever opened it before and locks it after would hold a lock on nothing.
  file_ = checkpoint::FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (file_.get() < 0) checkpoint::fail_errno(ErrorKind::Runtime, "cannot write", path_);
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      fail(ErrorKind::Usage, "{} is in use by {}: wait for it, or choose another --out", folder.string(),
           owner_in(file_, path_));
    }
    log_warning("{} is on a file system without locks: see to it that no second job uses the folder", folder.string());
  }
  const std::string owner =
      fmt::format("process {} on {} since {:%Y-%m-%d %H:%M:%S}\n", ::getpid(), Environment::host(),
                  fmt::localtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  if (::ftruncate(file_.get(), 0) != 0) checkpoint::fail_errno(ErrorKind::Runtime, "cannot write", path_);
  checkpoint::write_at(file_, path_, owner.data(), isize(owner.size()), 0);
}

FolderLock::~FolderLock() {
  // An empty file says that the job left in good order.
  if (::ftruncate(file_.get(), 0) != 0) log_warning("cannot clear {}", path_.string());
}

}  // namespace switchyard
